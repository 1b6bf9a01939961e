// Products of 32 rows and 32 columns at a time through AMX's tiles, in bf16 and bytes.

#pragma once

#include "native_kinds.h"

#ifdef TILES
namespace {

constexpr int BLOCK = 32;  // and columns: two tiles each way
bool tiles = false;        // whether this process may use them

// Tiles 0 to 3 are the sums, 4 and 5 the left, 6 and 7 the right: each 16 rows of 16 words.
struct Tiles {
    Tiles() {
        alignas(64) static const uint8_t shapes[64] = {
            1, 0, 0,  0, 0,  0, 0,  0, 0,  0, 0,  0, 0,  0, 0,  0, 64, 0, 64, 0, 64, 0, 64, 0, 64, 0, 64, 0, 64, 0, 64, 0,
            0, 0, 0,  0, 0,  0, 0,  0, 0,  0, 0,  0, 0,  0, 0,  0, 16, 16, 16, 16, 16, 16, 16, 16};
        _tile_loadconfig(shapes);
    }
    ~Tiles() { _tile_release(); }
};

// Where tiles lie, in words: `stride` from a row of a tile to the next, `step` to the next 16 words of the inputs, `apart` to the other 16 rows
// on the left or columns on the right.
struct Operand {
    const int32_t* at;
    int64_t stride, step, apart;
};

// Sums of 32 rows × 32 columns over `words` of the inputs, a multiple of 16; begun anew where `fresh`.
template <class Kind>
inline void multiply_tiles(void* sums, int64_t stride, Operand left, Operand right, int64_t words, bool fresh) {
    int32_t* to = (int32_t*)sums;
    asm volatile("" ::: "memory");  // what was stored before is in memory before a tile reads it
    if (fresh) {
        _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
    } else {
        _tile_loadd(0, to, stride * 4); _tile_loadd(1, to + 16, stride * 4);
        _tile_loadd(2, to + 16 * stride, stride * 4); _tile_loadd(3, to + 16 * stride + 16, stride * 4);
    }
    for (; words > 0; words -= 16, left.at += left.step, right.at += right.step) {
        _tile_loadd(4, left.at, left.stride * 4); _tile_loadd(6, right.at, right.stride * 4);
        _tile_loadd(7, right.at + right.apart, right.stride * 4); _tile_loadd(5, left.at + left.apart, left.stride * 4);
        Kind::fma_tiles();
    }
    _tile_stored(0, to, stride * 4); _tile_stored(1, to + 16, stride * 4);
    _tile_stored(2, to + 16 * stride, stride * 4); _tile_stored(3, to + 16 * stride + 16, stride * 4);
    asm volatile("" ::: "memory");
}

}  // namespace
#endif
