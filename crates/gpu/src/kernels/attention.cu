// Scaled dot-product attention without the matrix of scores (Milakov and Gimelshein, 2018; Dao et al., 2022).
// q (B, T, heads d), k and v (B, S, heads d).
#include "device.h"

// Arithmetic in f32, any width of a head up to 32 COLUMNS. A warp has QUERIES queries of one head and takes 32 keys at a time:
// a lane has one key's scores, and later the columns lane, lane + 32, … of the results.
// grid (ceil(T / (warps QUERIES)), heads, B); shared, in floats: keys (32, d + 1), then for each warp queries
// (QUERIES, d) and weights (QUERIES, 32).
template <class T, int COLUMNS, int QUERIES>
DEVICE void attend_of(const T* q, const T* k, const T* v, T* out, int queries, int keys, int heads, int d, float scale,
                      int causal) {
    SHARED(float, tile);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32, width = heads * d;
    const int first = (blockIdx.x * warps + warp) * QUERIES;
    float* query = tile + 32 * (d + 1) + warp * QUERIES * (d + 32);
    float* weight = query + QUERIES * d;
    const T* keys_of_head = k + (long long)blockIdx.z * keys * width + blockIdx.y * d;
    const T* values_of_head = v + (long long)blockIdx.z * keys * width + blockIdx.y * d;
    const long long queries_of_head = (long long)blockIdx.z * queries * width + blockIdx.y * d;
    for (int i = lane; i < QUERIES * d; i += 32) {
        const int line = first + i / d;
        query[i] = line < queries ? load(q + queries_of_head + (long long)line * width + i % d) * scale : 0.0f;
    }
    float sums[QUERIES][COLUMNS], largest[QUERIES], total[QUERIES];
    UNROLL for (int i = 0; i < QUERIES; i++) {
        largest[i] = negative_infinity();
        total[i] = 0.0f;
        UNROLL for (int j = 0; j < COLUMNS; j++) sums[i][j] = 0.0f;
    }
    // The same for all threads of a block, since they wait for each other.
    const int beyond_block = (blockIdx.x + 1) * warps * QUERIES;
    const int end = causal && beyond_block < keys ? beyond_block : keys;
    for (int start = 0; start < end; start += 32) {
        BARRIER(keys_were_read);
        for (int i = threadIdx.x; i < 32 * d; i += blockDim.x) {
            const int key = start + i / d;
            tile[i / d * (d + 1) + i % d] = key < keys ? load(keys_of_head + (long long)key * width + i % d) : 0.0f;
        }
        BARRIER(keys_are_there);
        UNROLL for (int i = 0; i < QUERIES; i++) {
            float score = 0.0f;
            for (int c = 0; c < d; c++) score += query[i * d + c] * tile[lane * (d + 1) + c];
            const bool seen = start + lane < keys && (!causal || start + lane <= first + i);
            // The first tile has a key that every query sees, so the largest score is finite from there on.
            const float next = fmaxf(largest[i], warp_max(seen ? score : negative_infinity()));
            const float factor = expf(largest[i] - next);
            const float share = seen ? expf(score - next) : 0.0f;
            largest[i] = next;
            total[i] = total[i] * factor + share;
            weight[i * 32 + lane] = share;
            UNROLL for (int j = 0; j < COLUMNS; j++) sums[i][j] *= factor;
        }
        WARP_BARRIER(weights_are_there);
        const int count = keys - start < 32 ? keys - start : 32;
        for (int key = 0; key < count; key++) {
            UNROLL for (int j = 0; j < COLUMNS; j++) {
                const int c = lane + 32 * j;
                if (c < d) {
                    const float value = load(values_of_head + (long long)(start + key) * width + c);
                    UNROLL for (int i = 0; i < QUERIES; i++) sums[i][j] += weight[i * 32 + key] * value;
                }
            }
        }
    }
    UNROLL for (int i = 0; i < QUERIES; i++) {
        const float all = warp_sum(total[i]);
        UNROLL for (int j = 0; j < COLUMNS; j++) {
            const int c = lane + 32 * j;
            if (c < d && first + i < queries)
                store(out + queries_of_head + (long long)(first + i) * width + c, sums[i][j] / all);
        }
    }
}

#define ATTEND(T, suffix, columns, queries_of_warp)                                                              \
    KERNEL(attend_##columns##_##suffix)                                                                          \
    (const T* q, const T* k, const T* v, T* out, int queries, int keys, int heads, int d, float scale,           \
     int causal) {                                                                                               \
        attend_of<T, columns, queries_of_warp>(q, k, v, out, queries, keys, heads, d, scale, causal);            \
    }                                                                                                            \
    REGISTER(attend_##columns##_##suffix)

ATTEND(float, f32, 2, 4)
ATTEND(half, f16, 2, 4)
ATTEND(float, f32, 5, 4)
ATTEND(half, f16, 5, 4)
ATTEND(float, f32, 16, 1)
ATTEND(half, f16, 16, 1)

// The same on the matrix units, for halves: a warp has 16 queries of one head and takes 16 keys at a time; D is the width of
// a head filled up to 16s. The weights of the keys are rounded to halves, as all engines of this kind do.
// grid (ceil(T / (16 warps)), heads, B); shared: keys and values (16, D + 8) halves each.
template <int D>
DEVICE void attend_tiles_of(const half* q, const half* k, const half* v, half* out, int queries, int keys, int heads, int d,
                            float scale) {
    constexpr int LINE = D + 8;
    SHARED(half, key_tile);
    half* value_tile = key_tile + 16 * LINE;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = lane / 4, part = lane % 4, width = heads * d;
    const int first = (blockIdx.x * (blockDim.x / 32) + warp) * 16;
    const long long queries_of_head = (long long)blockIdx.z * queries * width + blockIdx.y * d;
    const long long keys_of_head = (long long)blockIdx.z * keys * width + blockIdx.y * d;
    const auto query = [&](int line, int c) {
        return line < queries && c < d ? load(q + queries_of_head + (long long)line * width + c) * scale : 0.0f;
    };
    unsigned a[D / 16][4];
    UNROLL for (int i = 0; i < D / 16; i++) {
        const int c = 16 * i + 2 * part, line = first + group;
        a[i][0] = pack(query(line, c), query(line, c + 1));
        a[i][1] = pack(query(line + 8, c), query(line + 8, c + 1));
        a[i][2] = pack(query(line, c + 8), query(line, c + 9));
        a[i][3] = pack(query(line + 8, c + 8), query(line + 8, c + 9));
    }
    float sums[D / 8][4];
    UNROLL for (int i = 0; i < D / 8; i++)
        UNROLL for (int j = 0; j < 4; j++) sums[i][j] = 0.0f;
    float largest[2] = {negative_infinity(), negative_infinity()}, total[2] = {0.0f, 0.0f};
    for (int start = 0; start < keys; start += 16) {
        BARRIER(tiles_were_read);
        for (int i = threadIdx.x; i < 16 * D; i += blockDim.x) {
            const int key = i / D, c = i % D;
            const bool inside = start + key < keys && c < d;
            const long long at = keys_of_head + (long long)(start + key) * width + c;
            store(key_tile + key * LINE + c, inside ? load(k + at) : 0.0f);
            store(value_tile + key * LINE + c, inside ? load(v + at) : 0.0f);
        }
        BARRIER(tiles_are_there);
        float scores[2][4] = {{0.0f, 0.0f, 0.0f, 0.0f}, {0.0f, 0.0f, 0.0f, 0.0f}};
        UNROLL for (int n = 0; n < 2; n++)
            UNROLL for (int i = 0; i < D / 16; i++) {
                const half* from = key_tile + (8 * n + group) * LINE + 16 * i + 2 * part;
                const unsigned b[2] = {pack(from[0], from[1]), pack(from[8], from[9])};
                multiply_16x8x16(scores[n], a[i], b);
            }
        float next[2] = {largest[0], largest[1]};
        UNROLL for (int n = 0; n < 2; n++)
            UNROLL for (int j = 0; j < 4; j++) {
                if (start + 8 * n + 2 * part + j % 2 >= keys) scores[n][j] = negative_infinity();
                next[j / 2] = fmaxf(next[j / 2], scores[n][j]);
            }
        UNROLL for (int r = 0; r < 2; r++) {
            next[r] = fmaxf(next[r], shuffle_xor(next[r], 1));
            next[r] = fmaxf(next[r], shuffle_xor(next[r], 2));
            const float factor = expf(largest[r] - next[r]);
            total[r] *= factor;
            largest[r] = next[r];
            UNROLL for (int i = 0; i < D / 8; i++) {
                sums[i][2 * r] *= factor;
                sums[i][2 * r + 1] *= factor;
            }
        }
        UNROLL for (int n = 0; n < 2; n++)
            UNROLL for (int j = 0; j < 4; j++) {
                scores[n][j] = expf(scores[n][j] - largest[j / 2]);
                total[j / 2] += scores[n][j];
            }
        const unsigned weights[4] = {pack(scores[0][0], scores[0][1]), pack(scores[0][2], scores[0][3]),
                                     pack(scores[1][0], scores[1][1]), pack(scores[1][2], scores[1][3])};
        UNROLL for (int i = 0; i < D / 8; i++) {
            const half* from = value_tile + 2 * part * LINE + 8 * i + group;
            const unsigned b[2] = {pack(from[0], from[LINE]), pack(from[8 * LINE], from[9 * LINE])};
            multiply_16x8x16(sums[i], weights, b);
        }
    }
    UNROLL for (int r = 0; r < 2; r++) {
        total[r] += shuffle_xor(total[r], 1);
        total[r] += shuffle_xor(total[r], 2);
        const int line = first + group + 8 * r;
        UNROLL for (int i = 0; i < D / 8; i++)
            UNROLL for (int j = 0; j < 2; j++) {
                const int c = 8 * i + 2 * part + j;
                if (line < queries && c < d)
                    store(out + queries_of_head + (long long)line * width + c, sums[i][2 * r + j] / total[r]);
            }
    }
}

#define ATTEND_TILES(D)                                                                                          \
    KERNEL(attend_tiles_##D)                                                                                     \
    (const half* q, const half* k, const half* v, half* out, int queries, int keys, int heads, int d,            \
     float scale) {                                                                                              \
        attend_tiles_of<D>(q, k, v, out, queries, keys, heads, d, scale);                                        \
    }                                                                                                            \
    REGISTER(attend_tiles_##D)

ATTEND_TILES(48)
ATTEND_TILES(64)
ATTEND_TILES(80)
ATTEND_TILES(160)
