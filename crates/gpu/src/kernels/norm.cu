// Group and layer norms of images (B, pixels, C), channels innermost.
#include "device.h"

// An image whose channels stand in two tensors: the first `split` of them in `x`, the others in `skip`.
template <class T> struct Joined {
    const T* x;
    const T* skip;
    int split, channels;

    DEVICE_MEMBER float at(long long, long long pixel, int c) const {
        return c < split ? load(x + pixel * split + c) : load(skip + pixel * (channels - split) + (c - split));
    }
};

// The sum of two images, which is stored where it is read. `other` has as many pixels as `x`, or one for each row.
template <class T> struct Sum {
    const T* x;
    const T* other;
    T* y;
    int channels, other_is_bias;

    DEVICE_MEMBER float at(long long row, long long pixel, int c) const {
        const long long i = pixel * channels + c;
        store(y + i, load(x + i) + load(other + (other_is_bias ? row * channels + c : i)));
        return load(y + i);
    }
};

// Mean and squared deviations of each group in one chunk of the pixels of one row: `partial` (B, chunks, groups, 2).
// Sums run over differences to the chunk's first pixel, so that a mean that is large beside its deviation costs no digits.
// grid (chunks, B); shared: 2 floats for each channel.
template <class Source>
DEVICE void chunk_moments(const Source& source, float* partial, int pixels, int channels, int groups, int per_chunk) {
    SHARED(float, moments);
    const int row = blockIdx.y, first = blockIdx.x * per_chunk;
    const int last = first + per_chunk < pixels ? first + per_chunk : pixels;
    for (int c = threadIdx.x; c < channels; c += blockDim.x) {
        float origin = 0.0f, sum = 0.0f, squares = 0.0f;
        for (int p = first; p < last; p++) {
            const float value = source.at(row, (long long)row * pixels + p, c);
            if (p == first) origin = value;
            const float difference = value - origin;
            sum += difference;
            squares += difference * difference;
        }
        const float mean = sum / (last - first);
        moments[2 * c] = origin + mean;
        moments[2 * c + 1] = squares - sum * mean;
    }
    BARRIER(moments_are_there);
    const int width = channels / groups;
    for (int g = threadIdx.x; g < groups; g += blockDim.x) {
        double mean = 0.0, deviations = 0.0;
        for (int c = g * width; c < (g + 1) * width; c++) mean += moments[2 * c];
        mean /= width;
        for (int c = g * width; c < (g + 1) * width; c++) {
            const double difference = moments[2 * c] - mean;
            deviations += moments[2 * c + 1] + difference * difference * (last - first);
        }
        float* out = partial + (((long long)row * gridDim.x + blockIdx.x) * groups + g) * 2;
        out[0] = (float)mean;
        out[1] = (float)deviations;
    }
}

// y = norm(image), then SiLU or not. grid (ceil(pixels / per_block), B); shared: 2 floats for each channel.
template <class T>
DEVICE void group_norm_apply_of(const Joined<T>& image, const float* partial, const float* gamma, const float* beta, T* y,
                                int pixels, int groups, int chunks, int per_chunk, int per_block, float eps,
                                int with_silu) {
    SHARED(float, coefficients);
    const int row = blockIdx.y, channels = image.channels, width = channels / groups;
    for (int g = threadIdx.x; g < groups; g += blockDim.x) {
        const float* in = partial + ((long long)row * chunks * groups + g) * 2;
        double mean = 0.0, deviations = 0.0;
        for (int k = 0; k < chunks; k++) {
            const int count = (k + 1) * per_chunk < pixels ? per_chunk : pixels - k * per_chunk;
            mean += (double)in[k * groups * 2] * count;
        }
        mean /= pixels;
        for (int k = 0; k < chunks; k++) {
            const int count = (k + 1) * per_chunk < pixels ? per_chunk : pixels - k * per_chunk;
            const double difference = in[k * groups * 2] - mean;
            deviations += in[k * groups * 2 + 1] + difference * difference * count * width;
        }
        const double scale = 1.0 / sqrt(deviations / ((double)pixels * width) + (double)eps);
        for (int c = g * width; c < (g + 1) * width; c++) {
            // Not as x * factor + shift: where a group hardly varies, both are large and their sum has no digits left.
            coefficients[2 * c] = (float)mean;
            coefficients[2 * c + 1] = (float)(gamma[c] * scale);
        }
    }
    BARRIER(coefficients_are_there);
    const int first = blockIdx.x * per_block, last = first + per_block < pixels ? first + per_block : pixels;
    for (int i = threadIdx.x; i < (last - first) * channels; i += blockDim.x) {
        const int c = i % channels;
        const long long pixel = (long long)row * pixels + first + i / channels;
        const float value = (image.at(row, pixel, c) - coefficients[2 * c]) * coefficients[2 * c + 1] + beta[c];
        store(y + pixel * channels + c, with_silu ? silu(value) : value);
    }
}

// One warp for each line of x (lines, width).
template <class T>
DEVICE void layer_norm_of(const T* x, const float* gamma, const float* beta, T* y, int lines, int width, float eps) {
    const int lane = threadIdx.x % 32, line = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (line >= lines) return;
    const T* in = x + (long long)line * width;
    float sum = 0.0f, squares = 0.0f;
    for (int c = lane; c < width; c += 32) sum += load(in + c);
    const float mean = warp_sum(sum) / width;
    for (int c = lane; c < width; c += 32) {
        const float difference = load(in + c) - mean;
        squares += difference * difference;
    }
    const float scale = 1.0f / sqrtf(warp_sum(squares) / width + eps);
    for (int c = lane; c < width; c += 32)
        store(y + (long long)line * width + c, (load(in + c) - mean) * scale * gamma[c] + beta[c]);
}

#define NORMS(T, suffix)                                                                                           \
    KERNEL(group_norm_sums_##suffix)                                                                               \
    (const T* x, const T* skip, float* partial, int split, int channels, int pixels, int groups, int per_chunk) {  \
        const Joined<T> image{x, skip, split, channels};                                                           \
        chunk_moments(image, partial, pixels, channels, groups, per_chunk);                                        \
    }                                                                                                              \
    KERNEL(add_sums_##suffix)                                                                                      \
    (const T* x, const T* other, T* y, float* partial, int other_is_bias, int channels, int pixels, int groups,    \
     int per_chunk) {                                                                                              \
        const Sum<T> sum{x, other, y, channels, other_is_bias};                                                    \
        chunk_moments(sum, partial, pixels, channels, groups, per_chunk);                                          \
    }                                                                                                              \
    KERNEL(group_norm_apply_##suffix)                                                                              \
    (const T* x, const T* skip, const float* partial, const float* gamma, const float* beta, T* y, int split,      \
     int channels, int pixels, int groups, int chunks, int per_chunk, int per_block, float eps, int with_silu) {   \
        const Joined<T> image{x, skip, split, channels};                                                           \
        group_norm_apply_of(image, partial, gamma, beta, y, pixels, groups, chunks, per_chunk, per_block, eps,     \
                            with_silu);                                                                            \
    }                                                                                                              \
    KERNEL(layer_norm_##suffix)                                                                                    \
    (const T* x, const float* gamma, const float* beta, T* y, int lines, int width, float eps) {                   \
        layer_norm_of(x, gamma, beta, y, lines, width, eps);                                                       \
    }                                                                                                              \
    REGISTER(group_norm_sums_##suffix)                                                                             \
    REGISTER(add_sums_##suffix)                                                                                    \
    REGISTER(group_norm_apply_##suffix)                                                                            \
    REGISTER(layer_norm_##suffix)

NORMS(float, f32)
NORMS(half, f16)
