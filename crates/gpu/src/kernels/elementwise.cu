// Kernels that compute each number of their result from the numbers at its place.
#include "device.h"

#define EACH(i, count) for (long long i = first_index(); i < (count); i += index_step())

// h (lines, 2 width) -> y (lines, width): the first half of a line times the GELU of the second.
template <class T> DEVICE void geglu_of(const T* h, T* y, long long lines, int width) {
    EACH(i, lines * width) {
        const long long line = i / width;
        const int c = (int)(i % width);
        const T* in = h + line * 2 * width;
        store(y + i, load(in + c) * gelu(load(in + width + c)));
    }
}

// The numbers of `Activation` in elementwise.rs.
DEVICE float activated(float x, int kind) {
    switch (kind) {
        case 0: return silu(x);
        case 1: return gelu(x);
        case 2: return quick_gelu(x);
        case 3: return x > 0.0f ? x : 0.0f;
        default: return tanhf(x);
    }
}

template <class T> DEVICE void activate_of(const T* x, T* y, long long count, int kind) {
    EACH(i, count) store(y + i, activated(load(x + i), kind));
}

template <class T> DEVICE void affine_of(const T* x, T* y, long long count, float scale, float shift) {
    EACH(i, count) store(y + i, load(x + i) * scale + shift);
}

// y = x + other, where number i has beside it number (i / row) * step + i % period of `other`.
template <class T>
DEVICE void add_of(const T* x, const T* other, T* y, long long count, long long row, long long step, long long period) {
    EACH(i, count) store(y + i, load(x + i) + load(other + (i / row * step + i % period)));
}

// y = x + scale of the row * other.
template <class T>
DEVICE void add_scaled_of(const T* x, const T* other, const float* scales, T* y, long long count, long long row) {
    EACH(i, count) store(y + i, load(x + i) + scales[i / row] * load(other + i));
}

#define ELEMENTWISE(T, suffix)                                                                                    \
    KERNEL(geglu_##suffix)(const T* h, T* y, long long lines, int width) { geglu_of(h, y, lines, width); }        \
    KERNEL(activate_##suffix)(const T* x, T* y, long long count, int kind) { activate_of(x, y, count, kind); }    \
    KERNEL(affine_##suffix)(const T* x, T* y, long long count, float scale, float shift) {                        \
        affine_of(x, y, count, scale, shift);                                                                     \
    }                                                                                                             \
    KERNEL(add_##suffix)                                                                                          \
    (const T* x, const T* other, T* y, long long count, long long row, long long step, long long period) {        \
        add_of(x, other, y, count, row, step, period);                                                            \
    }                                                                                                             \
    KERNEL(add_scaled_##suffix)                                                                                   \
    (const T* x, const T* other, const float* scales, T* y, long long count, long long row) {                     \
        add_scaled_of(x, other, scales, y, count, row);                                                           \
    }                                                                                                             \
    REGISTER(geglu_##suffix)                                                                                      \
    REGISTER(activate_##suffix)                                                                                   \
    REGISTER(affine_##suffix)                                                                                     \
    REGISTER(add_##suffix)                                                                                        \
    REGISTER(add_scaled_##suffix)

ELEMENTWISE(float, f32)
ELEMENTWISE(half, f16)

KERNEL(convert_f32_f16)(const float* x, half* y, long long count) {
    EACH(i, count) store(y + i, x[i]);
}
KERNEL(convert_f16_f32)(const half* x, float* y, long long count) {
    EACH(i, count) y[i] = load(x + i);
}
REGISTER(convert_f32_f16)
REGISTER(convert_f16_f32)
