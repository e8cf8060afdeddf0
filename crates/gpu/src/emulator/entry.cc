// All kernels for the emulated device, and the one name by which Rust runs them.
#include "attention.cu"
#include "elementwise.cu"
#include "layout.cu"
#include "low_rank.cu"
#include "norm.cu"
#include "token_merge.cu"

extern "C" int pentimento_emulate(const char* name, const char* signature, const unsigned* grid, const unsigned* block,
                                  size_t shared_bytes, int order, const char* fault, void** parameters, char* why,
                                  size_t why_bytes) {
    return emulator::launch_for_rust(name, signature, grid, block, shared_bytes, order, fault, parameters, why,
                                     why_bytes);
}
