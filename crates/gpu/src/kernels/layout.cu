// Kernels that move numbers and compute nothing.
#include "device.h"

#define EACH(i, count) for (long long i = first_index(); i < (count); i += index_step())

// x (B, pixels, C) -> y (B, C, pixels)
template <class T> DEVICE void channels_first_of(const T* x, T* y, long long count, int pixels, int channels) {
    EACH(i, count) {
        const long long row = i / ((long long)pixels * channels);
        const int c = (int)(i / pixels % channels), pixel = (int)(i % pixels);
        y[i] = x[(row * pixels + pixel) * channels + c];
    }
}

// x (B, C, pixels) -> y (B, pixels, C)
template <class T> DEVICE void channels_last_of(const T* x, T* y, long long count, int pixels, int channels) {
    EACH(i, count) {
        const long long row = i / ((long long)pixels * channels);
        const int c = (int)(i % channels), pixel = (int)(i / channels % pixels);
        y[i] = x[(row * channels + c) * pixels + pixel];
    }
}

// y[i] = x[places[i]], lines of `width` numbers. A place outside of x gives NaN, never memory of somebody else.
template <class T>
DEVICE void gather_of(const T* x, const int* places, T* y, long long lines, long long width, int available) {
    EACH(i, lines * width) {
        const int place = places[i / width];
        if (place >= 0 && place < available) {
            y[i] = x[place * width + i % width];
        } else {
            store(y + i, not_a_number());
        }
    }
}

// Columns `to`..`to + count` of y (lines, y_width) = columns `from`.. of x (lines, x_width); zeros where x has no more.
template <class T>
DEVICE void copy_columns_of(const T* x, T* y, long long lines, int x_width, int from, int y_width, int to, int count) {
    EACH(i, lines * count) {
        const long long line = i / count;
        const int c = (int)(i % count);
        T* out = y + line * y_width + to + c;
        if (from + c < x_width) {
            *out = x[line * x_width + from + c];
        } else {
            store(out, 0.0f);
        }
    }
}

// The nearest of `from` places for place `at` of `to`, as PyTorch's `interpolate` rounds it.
DEVICE int nearest(int at, int from, int to) {
    const int place = (int)(at * ((double)from / (double)to));
    return place < from ? place : from - 1;
}

// x (B, h, w, C) -> y (B, to_h, to_w, C)
template <class T>
DEVICE void upsample_of(const T* x, T* y, long long count, int h, int w, int to_h, int to_w, int channels) {
    EACH(i, count) {
        const int c = (int)(i % channels), column = (int)(i / channels % to_w);
        const int line = (int)(i / channels / to_w % to_h);
        const long long row = i / channels / to_w / to_h;
        y[i] = x[((row * h + nearest(line, h, to_h)) * w + nearest(column, w, to_w)) * channels + c];
    }
}

#define LAYOUT(T, suffix)                                                                                          \
    KERNEL(channels_first_##suffix)(const T* x, T* y, long long count, int pixels, int channels) {                 \
        channels_first_of(x, y, count, pixels, channels);                                                          \
    }                                                                                                              \
    KERNEL(channels_last_##suffix)(const T* x, T* y, long long count, int pixels, int channels) {                  \
        channels_last_of(x, y, count, pixels, channels);                                                           \
    }                                                                                                              \
    KERNEL(gather_##suffix)                                                                                        \
    (const T* x, const int* places, T* y, long long lines, long long width, int available) {                       \
        gather_of(x, places, y, lines, width, available);                                                          \
    }                                                                                                              \
    KERNEL(copy_columns_##suffix)                                                                                  \
    (const T* x, T* y, long long lines, int x_width, int from, int y_width, int to, int count) {                   \
        copy_columns_of(x, y, lines, x_width, from, y_width, to, count);                                           \
    }                                                                                                              \
    KERNEL(upsample_##suffix)                                                                                      \
    (const T* x, T* y, long long count, int h, int w, int to_h, int to_w, int channels) {                          \
        upsample_of(x, y, count, h, w, to_h, to_w, channels);                                                      \
    }                                                                                                              \
    REGISTER(channels_first_##suffix)                                                                              \
    REGISTER(channels_last_##suffix)                                                                               \
    REGISTER(gather_##suffix)                                                                                      \
    REGISTER(copy_columns_##suffix)                                                                                \
    REGISTER(upsample_##suffix)

LAYOUT(float, f32)
LAYOUT(half, f16)
