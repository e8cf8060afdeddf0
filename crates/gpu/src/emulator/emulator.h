// CUDA kernels as plain C++, so that they run where there is no GPU.
//
// Every thread of a block is a fiber, and one block runs at a time. A barrier, a shuffle and a matrix product of a warp hand
// over to the next fiber; in which order is a parameter, so that a kernel whose result depends on it is found. Shared memory
// is filled with NaN first. Not seen: timing, registers, the alignment of loads, memory order finer than barriers.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <sys/mman.h>
#if !defined(__x86_64__) || defined(EMULATOR_UCONTEXT)
#define EMULATOR_UCONTEXT
#include <ucontext.h>
#endif

// The parameter lists of kernels, as letters: p a pointer, i an int, l a long long, f a float.
template <class A> struct Letter { static constexpr char value = '?'; };
template <class A> struct Letter<A*> { static constexpr char value = 'p'; };
template <> struct Letter<int> { static constexpr char value = 'i'; };
template <> struct Letter<long long> { static constexpr char value = 'l'; };
template <> struct Letter<float> { static constexpr char value = 'f'; };

struct Extent3 { unsigned x = 1, y = 1, z = 1; };

#ifndef EMULATOR_UCONTEXT
extern "C" void pentimento_switch(void** save, void* load);
#endif

namespace emulator {

enum class State { Ready, AtBlockBarrier, AtWarpBarrier, Done };

// Where a fiber, or the loop that runs them, goes on.
struct Context {
#ifdef EMULATOR_UCONTEXT
    ucontext_t saved;
#else
    void* stack_pointer = nullptr;
#endif
};

struct Fiber {
    Context context;
    char* stack = nullptr;
    State state = State::Done;
    Extent3 thread;
    int lane = 0, warp = 0;
};

// What the lanes of a warp show each other.
struct WarpBox {
    unsigned words[32][8];
    float numbers[32];
};

typedef void (*Caller)(void* kernel, void** parameters);

struct Entry {
    void* kernel = nullptr;
    Caller call = nullptr;
    std::string signature;
};

inline std::map<std::string, Entry>& table() {
    static std::map<std::string, Entry> entries;
    return entries;
}

template <class... A, size_t... I> void apply(void (*kernel)(A...), void** parameters, std::index_sequence<I...>) {
    kernel(*static_cast<A*>(parameters[I])...);
}

struct Register {
    template <class... A> Register(const char* name, void (*kernel)(A...)) {
        Entry entry;
        entry.kernel = reinterpret_cast<void*>(kernel);
        entry.call = [](void* kernel, void** parameters) {
            apply(reinterpret_cast<void (*)(A...)>(kernel), parameters, std::index_sequence_for<A...>{});
        };
        entry.signature = {Letter<A>::value...};
        table()[name] = entry;
    }
};

constexpr size_t STACK_BYTES = 64 << 10;
constexpr size_t PAGE_BYTES = 4096;

inline std::vector<Fiber> fibers;
inline std::vector<WarpBox> boxes;
inline std::vector<unsigned char> shared_storage;
inline unsigned char* shared_memory = nullptr;
inline Context loop;
inline int current = 0;
inline Extent3 block_index, block_size, grid_size;
inline const Entry* running = nullptr;
inline void** running_parameters = nullptr;

// A fault that a test has planted: the barrier of this name is left out, or "shuffle" or "fragments" is wrong.
inline std::string planted;
inline bool is_planted(const char* name) { return !planted.empty() && planted == name; }

inline void go(Context& from, Context& to) {
#ifdef EMULATOR_UCONTEXT
    swapcontext(&from.saved, &to.saved);
#else
    pentimento_switch(&from.stack_pointer, to.stack_pointer);
#endif
}

inline void wait_as(State state) {
    Fiber& fiber = fibers[current];
    fiber.state = state;
    go(fiber.context, loop);
}

inline void begin_fiber() {
    running->call(running->kernel, running_parameters);
    fibers[current].state = State::Done;
    go(fibers[current].context, loop);
    __builtin_trap();
}

inline bool prepare(Fiber& fiber) {
    if (!fiber.stack) {
        void* stack = mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (stack == MAP_FAILED) return false;
        // The lowest page is a fence: a stack that is too deep stops there.
        mprotect(stack, PAGE_BYTES, PROT_NONE);
        fiber.stack = static_cast<char*>(stack);
    }
    fiber.state = State::Ready;
#ifdef EMULATOR_UCONTEXT
    getcontext(&fiber.context.saved);
    fiber.context.saved.uc_stack.ss_sp = fiber.stack;
    fiber.context.saved.uc_stack.ss_size = STACK_BYTES;
    fiber.context.saved.uc_link = nullptr;
    makecontext(&fiber.context.saved, begin_fiber, 0);
#else
    void** top = reinterpret_cast<void**>(fiber.stack + STACK_BYTES);
    *--top = nullptr;
    *--top = reinterpret_cast<void*>(&begin_fiber);
    for (int saved = 0; saved < 6; saved++) *--top = nullptr;
    fiber.context.stack_pointer = top;
#endif
    return true;
}

struct Counts { size_t live = 0, at_warp = 0, at_block = 0; };

inline Counts count(size_t from, size_t to) {
    Counts counts;
    for (size_t i = from; i < to; i++) {
        counts.live += fibers[i].state != State::Done;
        counts.at_warp += fibers[i].state == State::AtWarpBarrier;
        counts.at_block += fibers[i].state == State::AtBlockBarrier;
    }
    return counts;
}

inline void release(size_t from, size_t to, State state) {
    for (size_t i = from; i < to; i++)
        if (fibers[i].state == state) fibers[i].state = State::Ready;
}

// Runs the fibers that are ready once, in the order of `indices`.
template <class Indices> bool run_ready(const Indices& indices) {
    bool ran = false;
    for (size_t i : indices) {
        if (fibers[i].state != State::Ready) continue;
        current = static_cast<int>(i);
        go(loop, fibers[i].context);
        ran = true;
    }
    return ran;
}

// The order of the threads: 0 ascending, 1 descending, 2 random, each thread from barrier to barrier in turn; 3, 4, 5 the
// same for warps, where a warp runs as far as it can before the next one runs at all. Only the last three see that a
// barrier is missing before a tile is filled again.
inline bool run_block(int order, size_t shared_bytes, std::string& why) {
    static std::mt19937 random(7);
    const size_t threads = static_cast<size_t>(block_size.x) * block_size.y * block_size.z;
    const size_t warps = (threads + 31) / 32;
    if (fibers.size() < threads) fibers.resize(threads);
    boxes.resize(warps);
    shared_storage.assign(shared_bytes + 16, 0xff);
    shared_memory = shared_storage.data() + (16 - reinterpret_cast<uintptr_t>(shared_storage.data()) % 16) % 16;
    for (size_t i = 0; i < threads; i++) {
        Fiber& fiber = fibers[i];
        fiber.lane = static_cast<int>(i % 32);
        fiber.warp = static_cast<int>(i / 32);
        fiber.thread.x = static_cast<unsigned>(i % block_size.x);
        fiber.thread.y = static_cast<unsigned>(i / block_size.x % block_size.y);
        fiber.thread.z = static_cast<unsigned>(i / block_size.x / block_size.y);
        if (!prepare(fiber)) {
            why = "no memory for the stacks of the emulated threads";
            return false;
        }
    }
    std::vector<size_t> all(threads), warp_order(warps), lanes;
    for (size_t i = 0; i < threads; i++) all[i] = order % 3 == 1 ? threads - 1 - i : i;
    for (size_t i = 0; i < warps; i++) warp_order[i] = order % 3 == 1 ? warps - 1 - i : i;
    for (;;) {
        bool ran = false;
        if (order < 3) {
            if (order == 2) std::shuffle(all.begin(), all.end(), random);
            ran = run_ready(all);
        } else {
            if (order == 5) std::shuffle(warp_order.begin(), warp_order.end(), random);
            for (size_t warp : warp_order) {
                const size_t from = warp * 32, to = std::min(threads, from + 32);
                lanes.clear();
                for (size_t i = from; i < to; i++) lanes.push_back(i);
                for (;;) {
                    const bool moved = run_ready(lanes);
                    ran |= moved;
                    const Counts counts = count(from, to);
                    if (counts.live && counts.live == counts.at_warp) {
                        release(from, to, State::AtWarpBarrier);
                    } else if (!moved) {
                        break;
                    }
                }
            }
        }
        bool released = false;
        for (size_t warp = 0; warp < warps; warp++) {
            const size_t from = warp * 32, to = std::min(threads, from + 32);
            const Counts counts = count(from, to);
            if (counts.live && counts.live == counts.at_warp) {
                release(from, to, State::AtWarpBarrier);
                released = true;
            }
        }
        if (ran || released) continue;
        const Counts counts = count(0, threads);
        if (!counts.live) return true;
        if (counts.live != counts.at_block) {
            why = "divergence: " + std::to_string(counts.at_block) + " threads wait at a block's barrier, " +
                  std::to_string(counts.live - counts.at_block) + " elsewhere";
            return false;
        }
        release(0, threads, State::AtBlockBarrier);
    }
}

// Runs a kernel by its name. `signature` says what the parameters are, and must be the kernel's own.
inline bool launch(const char* name, const char* signature, Extent3 grid, Extent3 block, size_t shared_bytes, int order,
                   void** parameters, std::string& why) {
    const auto found = table().find(name);
    if (found == table().end()) {
        why = "there is no such kernel";
        return false;
    }
    if (found->second.signature != signature) {
        why = "it takes " + found->second.signature + " and was given " + signature;
        return false;
    }
    block_size = block;
    grid_size = grid;
    running = &found->second;
    running_parameters = parameters;
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) {
                block_index.x = x;
                block_index.y = y;
                block_index.z = z;
                if (!run_block(order, shared_bytes, why)) return false;
            }
    return true;
}

// 0, or 1 with the reason in `why`. Not to be called by two threads at a time.
inline int launch_for_rust(const char* name, const char* signature, const unsigned* grid, const unsigned* block,
                           size_t shared_bytes, int order, const char* fault, void** parameters, char* why,
                           size_t why_bytes) {
    planted = fault;
    Extent3 grid_extent, block_extent;
    grid_extent.x = grid[0], grid_extent.y = grid[1], grid_extent.z = grid[2];
    block_extent.x = block[0], block_extent.y = block[1], block_extent.z = block[2];
    std::string reason;
    if (launch(name, signature, grid_extent, block_extent, shared_bytes, order, parameters, reason)) return 0;
    std::snprintf(why, why_bytes, "%s", reason.c_str());
    return 1;
}

}  // namespace emulator

// The words of CUDA C++ that kernels use.
#define DEVICE static inline
#define DEVICE_MEMBER inline
#define KERNEL(name) extern "C" void name
#define REGISTER(name) static emulator::Register name##_registered(#name, &name);
#define SHARED(T, name) T* name = reinterpret_cast<T*>(emulator::shared_memory)
#define UNROLL
#define threadIdx (emulator::fibers[emulator::current].thread)
#define blockIdx (emulator::block_index)
#define blockDim (emulator::block_size)
#define gridDim (emulator::grid_size)

struct half { uint16_t bits; };

DEVICE float to_float(half value) {
    _Float16 number;
    std::memcpy(&number, &value.bits, sizeof number);
    return static_cast<float>(number);
}

DEVICE half to_half(float value) {
    const _Float16 number = static_cast<_Float16>(value);
    half result;
    std::memcpy(&result.bits, &number, sizeof number);
    return result;
}

DEVICE float negative_infinity() { return -INFINITY; }
DEVICE float not_a_number() { return NAN; }

DEVICE void barrier(const char* name) {
    if (emulator::is_planted(name)) return;
    // The planted fault: one thread waits for its warp where the others wait for the block.
    const bool astray = emulator::is_planted("divergence") && threadIdx.x == 0;
    emulator::wait_as(astray ? emulator::State::AtWarpBarrier : emulator::State::AtBlockBarrier);
}
DEVICE void warp_barrier(const char* name) {
    if (!emulator::is_planted(name)) emulator::wait_as(emulator::State::AtWarpBarrier);
}
#define BARRIER(name) barrier(#name)
#define WARP_BARRIER(name) warp_barrier(#name)

DEVICE float shuffle_xor(float value, int offset) {
    const emulator::Fiber& fiber = emulator::fibers[emulator::current];
    const int lane = fiber.lane, warp = fiber.warp;
    emulator::boxes[warp].numbers[lane] = value;
    emulator::wait_as(emulator::State::AtWarpBarrier);
    // The planted fault: lanes that far apart do not see each other, as in a sum over too few of them.
    const bool unseen = emulator::is_planted("shuffle") && (offset == 16 || offset == 2);
    const float result = emulator::boxes[warp].numbers[unseen ? lane : lane ^ offset];
    emulator::wait_as(emulator::State::AtWarpBarrier);
    return result;
}

// D = A (16x16, row) B (16x8, column) + D with the fragments of mma.m16n8k16 in the PTX ISA: group = lane / 4, part = lane % 4.
DEVICE void multiply_16x8x16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    const emulator::Fiber& fiber = emulator::fibers[emulator::current];
    const int lane = fiber.lane;
    emulator::WarpBox& box = emulator::boxes[fiber.warp];
    // The planted fault: two quarters of A in each other's place.
    const bool swapped = emulator::is_planted("fragments");
    for (int i = 0; i < 4; i++) box.words[lane][i] = a[swapped && (i == 1 || i == 2) ? 3 - i : i];
    box.words[lane][4] = b[0];
    box.words[lane][5] = b[1];
    emulator::wait_as(emulator::State::AtWarpBarrier);
    const auto at = [](unsigned word, int i) {
        half halves[2];
        std::memcpy(halves, &word, sizeof halves);
        return to_float(halves[i]);
    };
    const int group = lane / 4, part = lane % 4;
    for (int r = 0; r < 2; r++)
        for (int c = 0; c < 2; c++) {
            const int row = group + 8 * r, column = 2 * part + c;
            float sum = d[2 * r + c];
            for (int k = 0; k < 16; k++) {
                const int a_lane = (row % 8) * 4 + (k % 8) / 2, a_word = row / 8 + 2 * (k / 8);
                const int b_lane = column * 4 + (k % 8) / 2, b_word = 4 + k / 8;
                sum += at(box.words[a_lane][a_word], k % 2) * at(box.words[b_lane][b_word], k % 2);
            }
            d[2 * r + c] = sum;
        }
    emulator::wait_as(emulator::State::AtWarpBarrier);
}
