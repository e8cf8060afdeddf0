// What LoRAs add to a layer beside its weights, y += up (down x), where every row of the batch has matrices of its own or none
// (Chen et al., 2023, have the same as SGMV). How the sums of a row are cut depends on its own rank alone.
#include "device.h"

// What is beside one layer: the addresses of `down` (rank, inputs) and `up` (outputs, rank), and the rank; 0 for nothing.
constexpr int DOWN = 0, UP = 1, RANK = 2, ENTRY = 3;

// What row blockIdx.z has, where rows differ: `sets` has for each the address of a table with an entry for each layer, or 0. Without
// `sets` all rows have what is there already.
template <class T>
DEVICE void of_row(const unsigned long long* sets, int layer, int factor, const T*& matrix, int& rank) {
    if (!sets) return;
    const unsigned long long table = sets[blockIdx.z];
    rank = 0;
    if (table == 0) return;
    const unsigned long long* entry = reinterpret_cast<const unsigned long long*>(table) + (long long)layer * ENTRY;
    matrix = reinterpret_cast<const T*>(entry[factor]);
    rank = (int)entry[RANK];
}

// out (lines, columns) = a wᵀ; a (lines, inner), w (columns, inner). Lines of `a` and of `out` begin so many numbers after one
// another; `adds`: to what is in `out`. On the matrix units: a block has 64 lines and 64 columns, a warp 16 of these lines.
// Shared: slabs of a and of w, (64, DEPTH + 8) halves each.
DEVICE void multiply(const half* a, int a_line, const half* w, half* out, int out_line, int lines, int columns, int inner,
                     bool adds) {
    constexpr int SIDE = 64, DEPTH = 32, LINE = DEPTH + 8;
    SHARED(half, a_slab);
    half* w_slab = a_slab + SIDE * LINE;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = lane / 4, part = lane % 4;
    const int first = blockIdx.x * SIDE, column = blockIdx.y * SIDE;
    float sums[SIDE / 8][4];
    UNROLL for (int n = 0; n < SIDE / 8; n++)
        UNROLL for (int j = 0; j < 4; j++) sums[n][j] = 0.0f;
    for (int start = 0; start < inner; start += DEPTH) {
        BARRIER(slabs_were_read);
        for (int i = threadIdx.x; i < SIDE * DEPTH; i += blockDim.x) {
            const int line = i / DEPTH, k = i % DEPTH;
            const bool inside = start + k < inner;
            store(a_slab + line * LINE + k,
                  inside && first + line < lines ? load(a + (long long)(first + line) * a_line + start + k) : 0.0f);
            store(w_slab + line * LINE + k,
                  inside && column + line < columns ? load(w + (long long)(column + line) * inner + start + k) : 0.0f);
        }
        BARRIER(slabs_are_there);
        UNROLL for (int s = 0; s < DEPTH; s += 16) {
            const half* from = a_slab + (16 * warp + group) * LINE + s + 2 * part;
            const unsigned lines_of_warp[4] = {pack(from[0], from[1]), pack(from[8 * LINE], from[8 * LINE + 1]),
                                               pack(from[8], from[9]), pack(from[8 * LINE + 8], from[8 * LINE + 9])};
            UNROLL for (int n = 0; n < SIDE / 8; n++) {
                // A rank is often far below 64.
                if (column + 8 * n >= columns) break;
                const half* of_column = w_slab + (8 * n + group) * LINE + s + 2 * part;
                const unsigned b[2] = {pack(of_column[0], of_column[1]), pack(of_column[8], of_column[9])};
                multiply_16x8x16(sums[n], lines_of_warp, b);
            }
        }
    }
    UNROLL for (int n = 0; n < SIDE / 8; n++)
        UNROLL for (int j = 0; j < 4; j++) {
            const int line = first + 16 * warp + group + 8 * (j / 2), c = column + 8 * n + 2 * part + j % 2;
            if (line < lines && c < columns) {
                half* to = out + (long long)line * out_line + c;
                store(to, adds ? load(to) + sums[n][j] : sums[n][j]);
            }
        }
}

// The same in f32 arithmetic: a block has 16 lines and 16 columns, and a thread for each number.
// Shared: tiles of a and of w, (16, 17) floats each.
DEVICE void multiply(const float* a, int a_line, const float* w, float* out, int out_line, int lines, int columns, int inner,
                     bool adds) {
    constexpr int SIDE = 16, LINE = SIDE + 1;
    SHARED(float, a_tile);
    float* w_tile = a_tile + SIDE * LINE;
    const int line = threadIdx.x / SIDE, c = threadIdx.x % SIDE;
    const int first = blockIdx.x * SIDE, column = blockIdx.y * SIDE;
    float sum = 0.0f;
    for (int start = 0; start < inner; start += SIDE) {
        const bool inside = start + c < inner;
        BARRIER(factors_were_read);
        a_tile[line * LINE + c] =
            inside && first + line < lines ? a[(long long)(first + line) * a_line + start + c] : 0.0f;
        w_tile[line * LINE + c] =
            inside && column + line < columns ? w[(long long)(column + line) * inner + start + c] : 0.0f;
        BARRIER(factors_are_there);
        UNROLL for (int k = 0; k < SIDE; k++) sum += a_tile[line * LINE + k] * w_tile[c * LINE + k];
    }
    if (first + line < lines && column + c < columns) {
        float* to = out + (long long)(first + line) * out_line + column + c;
        *to = adds ? *to + sum : sum;
    }
}

// x (B, lines, inputs) -> t (B, lines, room), of which a row has numbers up to its rank: t = down x. Without `sets` all rows
// have `down` (rank, inputs).
// grid (ceil(lines / SIDE), ceil(room / SIDE), B)
template <class T>
DEVICE void low_rank_down_of(const T* x, const T* down, const unsigned long long* sets, T* t, int lines, int inputs, int room,
                             int rank, int layer) {
    of_row(sets, layer, DOWN, down, rank);
    // The same for all threads of a block: no block has more than 64 lines or columns, or fewer than 16.
    constexpr int SIDE = sizeof(T) == 2 ? 64 : 16;
    if ((int)blockIdx.y * SIDE >= rank) return;
    const long long row = blockIdx.z;
    multiply(x + row * lines * inputs, inputs, down, t + row * lines * room, room, lines, rank, inputs, false);
}

// t (B, lines, room), y (B, lines, outputs): y += up t.
// grid (ceil(lines / SIDE), ceil(outputs / SIDE), B)
template <class T>
DEVICE void low_rank_up_of(const T* t, const T* up, const unsigned long long* sets, T* y, int lines, int outputs, int room,
                           int rank, int layer) {
    of_row(sets, layer, UP, up, rank);
    if (rank == 0) return;
    const long long row = blockIdx.z;
    multiply(t + row * lines * room, room, up, y + row * lines * outputs, outputs, lines, outputs, rank, true);
}

#define LOW_RANK(T, suffix)                                                                                       \
    KERNEL(low_rank_down_##suffix)                                                                                \
    (const T* x, const T* down, const unsigned long long* sets, T* t, int lines, int inputs, int room, int rank,  \
     int layer) {                                                                                                 \
        low_rank_down_of(x, down, sets, t, lines, inputs, room, rank, layer);                                     \
    }                                                                                                             \
    KERNEL(low_rank_up_##suffix)                                                                                  \
    (const T* t, const T* up, const unsigned long long* sets, T* y, int lines, int outputs, int room, int rank,   \
     int layer) {                                                                                                 \
        low_rank_up_of(t, up, sets, y, lines, outputs, room, rank, layer);                                        \
    }                                                                                                             \
    REGISTER(low_rank_down_##suffix)                                                                              \
    REGISTER(low_rank_up_##suffix)

LOW_RANK(float, f32)
LOW_RANK(half, f16)
