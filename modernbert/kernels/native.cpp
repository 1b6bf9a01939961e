// A layer of the encoder on a CPU with AVX-512 or AVX2: products, attention, norms. Compiled by `native.py` where a compiler is; nothing needs it.
//
//     native_vectors.h      16 floats or words at a time: native_avx512.h or native_avx2.h
//     native_kinds.h        float32, bf16 and bytes, and the inner loop of every product
//     native_tiles.h        the same by AMX
//     native_product.h      tokens by weights · native_norm.h · native_attention.h
//     native.cpp            what `native.py` calls
//
// T tokens · K inputs · O outputs · W words of a row of inputs (K, K / 2 or K / 4) · N heads of 64 · D hidden.

#include "native_attention.h"
#include "native_norm.h"
#include "native_product.h"

extern "C" {

// What was compiled: 1 float32, 2 bf16, 4 bytes.
int modernbert_kinds() {
    int kinds = 1;
#ifdef __AVX512BF16__
    kinds |= 2;
#endif
#ifdef BYTES
    kinds |= 4;
#endif
    return kinds;
}

// Whether attention, and products of what is packed from now on, shall use AMX → whether they do. Linux grants its state to a process that asks.
int modernbert_use_tiles(int64_t wanted) {
#ifdef TILES
    constexpr long REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;  // arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)
    tiles = wanted && syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
    return tiles;
#else
    return 0;
#endif
}

// The highest level of int8 weights with which sums are exact.
int modernbert_levels() { return LEVELS; }

// Weights [O, W] as words → [O / SIDE, W, SIDE], or as tiles; whether as tiles.
int modernbert_pack(int64_t kind, const int32_t* from, int32_t* to, int64_t outputs, int64_t words) {
#ifdef TILES
    if (tiles && kind > 1) {
        for (int64_t o = 0; o < outputs; o++)
            for (int64_t w = 0; w < words; w++)
                to[(o / BLOCK * words + w / 16 * 16) * BLOCK + o % BLOCK / 16 * 256 + w % 16 * 16 + o % 16] = from[o * words + w];
        return 1;
    }
#endif
    for (int64_t o = 0; o < outputs; o++)
        for (int64_t w = 0; w < words; w++) to[column_at(o, words) + w * SIDE] = from[o * words + w];
    return 0;
}

// Every integer has 64 bits. kind: values to a word; tiled: what `modernbert_pack` said.
void modernbert_product(
    int64_t kind, int64_t tiled, int64_t ending, const void* x, const float* x_scale, const int32_t* packed, const float* scale, const int32_t* start, void* y,
    int64_t tokens, int64_t words, int64_t outputs, int64_t y_is_float) {
    const Product p = {(const int32_t*)x, x_scale, packed, scale, start, y, words, outputs, y_is_float};
#ifdef TILES
    if (tiled && kind == 2) return product_tiles<Brain>(p, tokens, (Ending)ending);
    if (tiled && kind == 4) return product_tiles<Bytes>(p, tokens, (Ending)ending);
#endif
    if (kind == 1) product<Float>(p, tokens, (Ending)ending);
#ifdef __AVX512BF16__
    if (kind == 2) product<Brain>(p, tokens, (Ending)ending);
#endif
#ifdef BYTES
    if (kind == 4) product<Bytes>(p, tokens, (Ending)ending);
#endif
}

// Rows of floats or bf16, normed where there is a weight, as floats (kind 1), bf16 (2) or bytes with a scale (4).
void modernbert_norm(
    int64_t kind, const void* x, int64_t x_is_float, const float* weight, float eps, void* y, float* y_scale, int64_t tokens, int64_t width) {
    if (x_is_float) norms(kind, (const float*)x, weight, eps, y, y_scale, tokens, width);
    else norms(kind, (const bf16*)x, weight, eps, y, y_scale, tokens, width);
}

// Heads [head_from, head_to) of all rows; kind 1 is float32, 2 bf16.
void modernbert_attention(
    int64_t kind, const void* qkv, const float* cosines, const float* sines, const int32_t* starts, void* out, int64_t rows, int64_t heads,
    int64_t window, int64_t head_from, int64_t head_to) {
    const Attention a = {qkv, cosines, sines, starts, out, rows, heads, window};
#ifdef TILES
    if (tiles && kind == 2) {
        const Tiles shaped;
        return attend_all<Tiled>(a, head_from, head_to);
    }
#endif
    if (kind == 1) attend_all<Float>(a, head_from, head_to);
#ifdef __AVX512BF16__
    if (kind == 2) attend_all<Brain>(a, head_from, head_to);
#endif
}
}
