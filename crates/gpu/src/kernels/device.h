// The few words that kernels are written in, for both compilers: NVRTC's here, the emulator's in emulator.h.
//
// NVRTC has no cuda_fp16.h, so the half is our own: 16 bits, converted by the instructions that are there for it.
#pragma once

#ifdef __CUDACC__

#define DEVICE static __device__ __forceinline__
#define DEVICE_MEMBER __device__ __forceinline__
#define KERNEL(name) extern "C" __global__ void name
#define REGISTER(name)
#define SHARED(T, name)                                       \
    extern __shared__ __align__(16) unsigned char name##_[]; \
    T* name = reinterpret_cast<T*>(name##_)
#define UNROLL _Pragma("unroll")

// Barriers have names, so that a test can leave each of them out and see that it is missed.
#define BARRIER(name) __syncthreads()
#define WARP_BARRIER(name) __syncwarp()

struct half {
    unsigned short bits;
};

DEVICE float to_float(half value) {
    float number;
    asm("cvt.f32.f16 %0, %1;" : "=f"(number) : "h"(value.bits));
    return number;
}

DEVICE half to_half(float value) {
    half result;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
    return result;
}

DEVICE float negative_infinity() { return __int_as_float(0xff800000); }
DEVICE float not_a_number() { return __int_as_float(0x7fc00000); }

DEVICE float shuffle_xor(float value, int offset) { return __shfl_xor_sync(0xffffffffu, value, offset); }

// D = A (16x16, row) B (16x8, column) + D
DEVICE void multiply_16x8x16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#else
#include "emulator.h"
#endif

DEVICE float load(const float* from) { return *from; }
DEVICE float load(const half* from) { return to_float(*from); }
DEVICE void store(float* to, float value) { *to = value; }
DEVICE void store(half* to, float value) { *to = to_half(value); }

DEVICE unsigned pack(half low, half high) { return low.bits | (unsigned)high.bits << 16; }
DEVICE unsigned pack(float low, float high) { return pack(to_half(low), to_half(high)); }

DEVICE float warp_sum(float value) {
    for (int offset = 16; offset; offset /= 2) value += shuffle_xor(value, offset);
    return value;
}

DEVICE float warp_max(float value) {
    for (int offset = 16; offset; offset /= 2) value = fmaxf(value, shuffle_xor(value, offset));
    return value;
}

DEVICE float silu(float x) { return x / (1.0f + expf(-x)); }
DEVICE float gelu(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f)); }
DEVICE float quick_gelu(float x) { return x / (1.0f + expf(-1.702f * x)); }

// The place of this thread among all of the grid's, and how many there are, for loops over the numbers of a tensor.
DEVICE long long first_index() { return (long long)blockIdx.x * blockDim.x + threadIdx.x; }
DEVICE long long index_step() { return (long long)gridDim.x * blockDim.x; }
