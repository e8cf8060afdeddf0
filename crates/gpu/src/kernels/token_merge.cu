// Token merging (Bolya and Hoffman, 2023): the tokens of an image that are most like the first token of a 2x2 cell become part
// of it. Where similarities tie, the first in the image's order wins, so that nothing depends on how threads are arranged.
#include "device.h"

// Whether token `token` of an image w wide may take others in. A cell that the image's edge cuts has no such token.
DEVICE bool takes_others(int token, int h, int w) {
    const int line = token / w, column = token % w;
    return line % 2 == 0 && column % 2 == 0 && line < h / 2 * 2 && column < w / 2 * 2;
}

// 1 over the length of each token of x (tokens, width), 0 for one without. One warp for each token.
template <class T> DEVICE void inverse_lengths_of(const T* x, float* lengths, int tokens, int width) {
    const int lane = threadIdx.x % 32, token = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (token >= tokens) return;
    float sum = 0.0f;
    for (int c = lane; c < width; c += 32) {
        const float value = load(x + (long long)token * width + c);
        sum += value * value;
    }
    sum = warp_sum(sum);
    if (lane == 0) lengths[token] = sum > 0.0f ? 1.0f / sqrtf(sum) : 0.0f;
}

// For each token that takes no others its best destination and how like it is; minus infinity for the others.
// A warp has TOKENS tokens, a lane one of 32 destinations at a time; SLICE numbers of their width are in shared memory.
// grid (ceil(tokens / (warps TOKENS)), B); shared, in floats: destinations (32, SLICE + 1), then for each warp tokens (TOKENS, SLICE).
constexpr int SLICE = 64, TOKENS = 4;

template <class T>
DEVICE void merge_similarity_of(const T* x, const float* lengths, float* scores, int* best, int h, int w, int width) {
    SHARED(float, tile);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32, tokens = h * w;
    const int first = (blockIdx.x * warps + warp) * TOKENS, across = w / 2, destinations = h / 2 * across;
    float* own = tile + 32 * (SLICE + 1) + warp * TOKENS * SLICE;
    const long long row = (long long)blockIdx.y * tokens;
    float found[TOKENS];
    int place[TOKENS];
    UNROLL for (int i = 0; i < TOKENS; i++) {
        found[i] = negative_infinity();
        place[i] = 0;
    }
    for (int start = 0; start < destinations; start += 32) {
        float sums[TOKENS];
        UNROLL for (int i = 0; i < TOKENS; i++) sums[i] = 0.0f;
        for (int slice = 0; slice < width; slice += SLICE) {
            BARRIER(slices_were_read);
            for (int i = threadIdx.x; i < 32 * SLICE; i += blockDim.x) {
                const int number = start + i / SLICE, c = slice + i % SLICE;
                const bool inside = number < destinations && c < width;
                const long long token = row + number / across * 2 * w + number % across * 2;
                tile[i / SLICE * (SLICE + 1) + i % SLICE] = inside ? load(x + token * width + c) : 0.0f;
            }
            for (int i = lane; i < TOKENS * SLICE; i += 32) {
                const int token = first + i / SLICE, c = slice + i % SLICE;
                own[i] = token < tokens && c < width ? load(x + (row + token) * width + c) : 0.0f;
            }
            BARRIER(slices_are_there);
            UNROLL for (int i = 0; i < TOKENS; i++)
                for (int c = 0; c < SLICE; c++) sums[i] += own[i * SLICE + c] * tile[lane * (SLICE + 1) + c];
        }
        const int number = start + lane;
        if (number < destinations) {
            const int token = number / across * 2 * w + number % across * 2;
            UNROLL for (int i = 0; i < TOKENS; i++) {
                const float of_token = first + i < tokens ? lengths[row + first + i] : 0.0f;
                const float score = sums[i] * of_token * lengths[row + token];
                if (score > found[i]) {
                    found[i] = score;
                    place[i] = token;
                }
            }
        }
    }
    UNROLL for (int i = 0; i < TOKENS; i++) {
        for (int offset = 16; offset; offset /= 2) {
            const float score = shuffle_xor(found[i], offset);
            // An image has fewer than 2^24 tokens.
            const int other = (int)shuffle_xor((float)place[i], offset);
            if (score > found[i] || (score == found[i] && other < place[i])) {
                found[i] = score;
                place[i] = other;
            }
        }
        const int token = first + i;
        if (lane == 0 && token < tokens) {
            scores[row + token] = takes_others(token, h, w) ? negative_infinity() : found[i];
            best[row + token] = place[i];
        }
    }
}

// target[t] = the token that t becomes part of: its best destination for the `merged` tokens with the highest scores, of
// equal ones the first; itself for the others. grid (ceil(tokens / threads), B); shared: a float for each thread.
DEVICE void merge_targets_of(const float* scores, const int* best, int* target, int h, int w, int merged) {
    SHARED(float, tile);
    const int tokens = h * w, token = blockIdx.x * blockDim.x + threadIdx.x;
    const long long row = (long long)blockIdx.y * tokens;
    const float score = token < tokens ? scores[row + token] : 0.0f;
    int before = 0;
    for (int start = 0; start < tokens; start += blockDim.x) {
        BARRIER(scores_were_read);
        if (start + (int)threadIdx.x < tokens) tile[threadIdx.x] = scores[row + start + threadIdx.x];
        BARRIER(scores_are_there);
        for (int i = 0; i < (int)blockDim.x && start + i < tokens; i++) {
            const bool precedes = tile[i] > score || (tile[i] == score && start + i < token);
            before += precedes && !takes_others(start + i, h, w);
        }
    }
    if (token < tokens) {
        const bool merges = !takes_others(token, h, w) && before < merged;
        target[row + token] = merges ? best[row + token] : token;
    }
}

// The place of each token among the kept ones of its row, and the kept token of each place. One block for each row; each
// thread counts a stretch of tokens. shared: an int for each thread.
DEVICE void merge_places_of(const int* target, int* places, int* kept, int tokens, int count) {
    SHARED(int, begins);
    const long long row = blockIdx.x;
    const int* into = target + row * tokens;
    const int stretch = (tokens + blockDim.x - 1) / blockDim.x;
    const int first = threadIdx.x * stretch, last = first + stretch < tokens ? first + stretch : tokens;
    int here = 0;
    for (int token = first; token < last; token++) here += into[token] == token;
    begins[threadIdx.x] = here;
    BARRIER(stretches_are_counted);
    if (threadIdx.x == 0) {
        int sum = 0;
        for (int i = 0; i < (int)blockDim.x; i++) {
            const int its = begins[i];
            begins[i] = sum;
            sum += its;
        }
    }
    BARRIER(stretches_are_summed);
    int place = begins[threadIdx.x];
    for (int token = first; token < last; token++) {
        if (into[token] != token) continue;
        places[row * tokens + token] = place;
        if (place < count) kept[row * count + place] = token;
        place++;
    }
    BARRIER(places_are_there);
    for (int token = first; token < last; token++)
        if (into[token] != token) places[row * tokens + token] = places[row * tokens + into[token]];
}

// The members of each kept token as a chain in the image's order: next[kept] is the first that is merged into it, next of that
// one the second, -1 behind the last. grid (ceil(tokens / threads), B).
DEVICE void merge_chains_of(const int* target, int* next, int tokens) {
    const int token = blockIdx.x * blockDim.x + threadIdx.x;
    const long long row = (long long)blockIdx.y * tokens;
    if (token >= tokens || target[row + token] != token) return;
    int last = token;
    for (int other = 0; other < tokens; other++) {
        if (other == token || target[row + other] != token) continue;
        next[row + last] = other;
        last = other;
    }
    next[row + last] = -1;
}

// y (B, count, width): the mean of each kept token and its members, added in the chain's order.
template <class T>
DEVICE void merge_of(const T* x, const int* kept, const int* next, T* y, long long numbers, int tokens, int count, int width) {
    for (long long i = first_index(); i < numbers; i += index_step()) {
        const long long place = i / width, row = place / count * tokens;
        const int c = (int)(i % width), first = kept[place];
        float sum = load(x + (row + first) * width + c);
        int members = 1;
        for (int token = next[row + first]; token >= 0; token = next[row + token]) {
            sum += load(x + (row + token) * width + c);
            members++;
        }
        store(y + i, members == 1 ? sum : sum / members);
    }
}

// y (B, tokens, width): x at the place of each token, plus the residual.
template <class T>
DEVICE void unmerge_of(const T* x, const int* places, const T* residual, T* y, long long numbers, int tokens, int count,
                       int width) {
    for (long long i = first_index(); i < numbers; i += index_step()) {
        const long long token = i / width, from = token / tokens * count + places[token];
        store(y + i, load(residual + i) + load(x + from * width + i % width));
    }
}

KERNEL(merge_targets)(const float* scores, const int* best, int* target, int h, int w, int merged) {
    merge_targets_of(scores, best, target, h, w, merged);
}
KERNEL(merge_places)(const int* target, int* places, int* kept, int tokens, int count) {
    merge_places_of(target, places, kept, tokens, count);
}
KERNEL(merge_chains)(const int* target, int* next, int tokens) { merge_chains_of(target, next, tokens); }
REGISTER(merge_targets)
REGISTER(merge_places)
REGISTER(merge_chains)

#define TOKEN_MERGE(T, suffix)                                                                                     \
    KERNEL(inverse_lengths_##suffix)(const T* x, float* lengths, int tokens, int width) {                          \
        inverse_lengths_of(x, lengths, tokens, width);                                                             \
    }                                                                                                              \
    KERNEL(merge_similarity_##suffix)                                                                              \
    (const T* x, const float* lengths, float* scores, int* best, int h, int w, int width) {                        \
        merge_similarity_of(x, lengths, scores, best, h, w, width);                                                \
    }                                                                                                              \
    KERNEL(merge_##suffix)                                                                                         \
    (const T* x, const int* kept, const int* next, T* y, long long numbers, int tokens, int count, int width) {    \
        merge_of(x, kept, next, y, numbers, tokens, count, width);                                                 \
    }                                                                                                              \
    KERNEL(unmerge_##suffix)                                                                                       \
    (const T* x, const int* places, const T* residual, T* y, long long numbers, int tokens, int count,             \
     int width) {                                                                                                  \
        unmerge_of(x, places, residual, y, numbers, tokens, count, width);                                         \
    }                                                                                                              \
    REGISTER(inverse_lengths_##suffix)                                                                             \
    REGISTER(merge_similarity_##suffix)                                                                            \
    REGISTER(merge_##suffix)                                                                                       \
    REGISTER(unmerge_##suffix)

TOKEN_MERGE(float, f32)
TOKEN_MERGE(half, f16)
