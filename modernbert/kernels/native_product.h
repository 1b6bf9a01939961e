// Products of tokens with packed weights, and what becomes of them: kept, added to the residual, or GeGLU.

#pragma once

#include <cstdlib>
#include <cstring>

#include "native_tiles.h"

namespace {

// What becomes of a product.
enum Ending { KEEP = 0, ADD = 1, GEGLU = 2 };

struct Product {
    const int32_t* x;       // [T, W]
    const float* x_scale;   // [T], bytes only
    const int32_t* packed;  // [O / SIDE, W, SIDE]
    const float* scale;     // [O] in the order of the packed columns, bytes only
    const int32_t* start;   // [O], −128 × the sum of each column, bytes only
    void* y;                // [T, O] Real of the layer, or float [T, O] that is added to, or [T, O / 2]
    int64_t words, outputs, y_is_float;
};

// The columns of a panel: the halves begin at two places for GeGLU, which takes 32 columns of the first half of the outputs and the same 32
// of the second.
struct Columns {
    int64_t first, second;
    Columns(const Product& p, int64_t panel, Ending ending)
        : first(ending == GEGLU ? panel * PANEL / 2 : panel * PANEL), second(first + (ending == GEGLU ? p.outputs / 2 : PANEL / 2)) {}
};

// Where a column begins among packed weights: SIDE columns lie side by side.
inline int64_t column_at(int64_t column, int64_t words) { return column / SIDE * SIDE * words + column % SIDE; }

// A token's sums in a panel, to where they belong.
template <class Kind>
inline void finish(const Product& p, int64_t t, int64_t panel, Ending ending, const Columns& columns, const typename Kind::Sum (&sum)[WIDE]) {
    V y[WIDE];
    for (int j = 0; j < WIDE; j++) {
        if constexpr (Kind::PER_WORD == 4) {
            const int64_t o = j < WIDE / 2 ? columns.first + 16 * j : columns.second + 16 * (j - WIDE / 2);
            y[j] = to_floats(add_words(sum[j], load_words(p.start + o))) * (load16(p.scale + o) * all(p.x_scale[t]));
        } else {
            y[j] = sum[j];
        }
    }
    if (ending == ADD) {
        float* to = (float*)p.y + t * p.outputs + panel * PANEL;
        for (int j = 0; j < WIDE; j++) store16(to + 16 * j, load16(to + 16 * j) + y[j]);
    } else {
        const int vectors = ending == GEGLU ? WIDE / 2 : WIDE;
        const int64_t at = t * (p.outputs * vectors / WIDE) + panel * 16 * vectors;
        if (ending == GEGLU)
            for (int j = 0; j < vectors; j++) y[j] = gelu16<Kind::DEGREE>(y[j]) * y[j + vectors];
        for (int j = 0; j < vectors; j++)
            p.y_is_float ? store16((float*)p.y + at + 16 * j, y[j]) : store16((bf16*)p.y + at + 16 * j, y[j]);
    }
}

template <class Kind, int R>
inline void rows(const Product& p, int64_t t, int64_t panel, Ending ending) {
    typename Kind::Sum sum[R][WIDE];
    for (int r = 0; r < R; r++)
        for (int j = 0; j < WIDE; j++) sum[r][j] = Kind::zero();
    const Columns columns(p, panel, ending);
    if (ending == ADD)  // what is added to lies in pieces, far apart: asked for now, it is here when the sums are
        for (int r = 0; r < R; r++)
            for (int i = 0; i < PANEL; i += 16) __builtin_prefetch((float*)p.y + (t + r) * p.outputs + panel * PANEL + i, 1);
    const int64_t first = column_at(columns.first, p.words), second = column_at(columns.second, p.words), block = SIDE == 16 ? 16 * p.words : 16;
    multiply<Kind, R, WIDE, SIDE>(sum, p.x + t * p.words, p.words, p.packed + first, (int)p.words, block, second - first - WIDE / 2 * block);
    for (int r = 0; r < R; r++) finish<Kind>(p, t + r, panel, ending, columns, sum[r]);
}

template <class Kind>
void product(const Product& p, int64_t tokens, Ending ending) {
    for (int64_t panel = 0; panel < p.outputs / PANEL; panel++) {
        int64_t t = 0;
        for (; t + ROWS <= tokens; t += ROWS) rows<Kind, ROWS>(p, t, panel, ending);
        switch (tokens - t) {
            case 1: rows<Kind, 1>(p, t, panel, ending); break;
            case 2: rows<Kind, 2>(p, t, panel, ending); break;
            case 3: rows<Kind, 3>(p, t, panel, ending); break;
            case 4: rows<Kind, 4>(p, t, panel, ending); break;
            case 5: rows<Kind, 5>(p, t, panel, ending); break;
        }
    }
}

// Memory that a thread keeps for its next call.
inline int32_t* scratch(int64_t words) {
    static thread_local int32_t* kept = nullptr;
    static thread_local int64_t size = 0;
    if (words > size) {
        free(kept);
        size = (words + 1023) / 1024 * 1024;
        kept = (int32_t*)aligned_alloc(64, size * 4);
    }
    return kept;
}

#ifdef TILES
constexpr int SLAB = 192;  // words of the inputs that go through both halves of a panel before the next: they stay in the first cache

// As `product`, a block of rows and a panel after the other, both in tiles that lie one behind the other: [T / 32, W / 16, 32, 16] and
// [O / 32, W / 16, 2, 16, 16].
template <class Kind>
void product_tiles(const Product& p, int64_t tokens, Ending ending) {
    const Tiles shaped;
    const int64_t blocks = (tokens + BLOCK - 1) / BLOCK, W = p.words;
    int32_t* left = scratch(blocks * BLOCK * W);  // sums of the rows behind the last token are not read
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t w = 0; w < W; w += 16)
            store_words(left + (t / BLOCK * W + w) * BLOCK + t % BLOCK * 16, load_words(p.x + t * W + w));
    for (int64_t panel = 0; panel < p.outputs / PANEL; panel++) {
        const Columns columns(p, panel, ending);
        for (int64_t block = 0; block < blocks; block++) {
            alignas(64) int32_t sums[BLOCK * PANEL];
            for (int64_t w = 0; w < W; w += SLAB)
                for (int half = 0; half < 2; half++) {
                    const int32_t* right = p.packed + (half ? columns.second : columns.first) * W;
                    const Operand x = {left + (block * W + w) * BLOCK, 16, 512, 256}, weight = {right + w * BLOCK, 16, 512, 256};
                    multiply_tiles<Kind>(sums + half * BLOCK, PANEL, x, weight, W - w < SLAB ? W - w : SLAB, w == 0);
                }
            for (int64_t r = 0; r < BLOCK && block * BLOCK + r < tokens; r++) {
                typename Kind::Sum sum[WIDE];
                for (int j = 0; j < WIDE; j++) sum[j] = (typename Kind::Sum)load_words(sums + r * PANEL + 16 * j);
                finish<Kind>(p, block * BLOCK + r, panel, ending, columns, sum);
            }
        }
    }
}
#endif

}  // namespace
