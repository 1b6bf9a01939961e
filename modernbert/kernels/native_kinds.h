// The three kinds of numbers that are multiplied, what softmax and GeGLU need, and the inner loop of every product.
//
// A word of 32 bits from the left (a float, two bf16, four bytes) meets 16 columns on the right, packed so that the words of 16 columns lie
// side by side. Six rows and four vectors of 16 columns stay in registers (AVX2: one).

#pragma once

#include "native_vectors.h"

namespace {

constexpr int ROWS = 6, WIDE = 4, PANEL = 16 * WIDE, HEAD = 64;

struct Float {  // float32
    typedef float Real;
    typedef V Sum;
    static constexpr int PER_WORD = 1, QUERIES = ROWS, DEGREE = 6;
    static inline Sum fma(Sum sum, Words a, Words b) { return ::fma(as_floats(a), as_floats(b), sum); }
    static inline Sum zero() { return all(0); }
    static inline Words one() { return all_words(0x3f800000); }
};

#ifdef __AVX512BF16__
struct Brain {  // bfloat16, two to a word
    typedef bf16 Real;
    typedef V Sum;
    static constexpr int PER_WORD = 2, QUERIES = ROWS, DEGREE = 3;
    static inline Sum fma(Sum sum, Words a, Words b) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }
    static inline Sum zero() { return all(0); }
    static inline Words one() { return all_words(0x3f803f80); }
#ifdef TILES
    static inline void fma_tiles() { _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 4, 7); _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7); }
#endif
};
#endif

#ifdef BYTES
struct Bytes {  // uint8 around 128 from the left, int8 from the right, four to a word; sums are exact
    typedef uint8_t Real;
    typedef Words Sum;
    static constexpr int PER_WORD = 4, DEGREE = 3;
    static inline Sum fma(Sum sum, Words a, Words b) { return fma_bytes(a, b, sum); }
    static inline Sum zero() { return all_words(0); }
#ifdef TILES
    static inline void fma_tiles() { _tile_dpbusd(0, 4, 6); _tile_dpbusd(1, 4, 7); _tile_dpbusd(2, 5, 6); _tile_dpbusd(3, 5, 7); }
#endif
};
#endif

// 2^x, and something vast where float32 ends; DEGREE 3 is right to 8e-5, enough for a weight in bf16, 6 to the last bits of float32.
template <int DEGREE>
inline V exp2_16(V x) {
    x = larger(x, all(-60));  // lower, products of it fall out of the normal numbers, at 20 times the cost
    const V whole = nearest(x), f = x - whole;
    V y;
    if (DEGREE == 3) {
        y = fma(all(0.05517f), f, all(0.24261f));
        y = fma(y, f, all(0.69326f));
        y = fma(y, f, all(0.99993f));
    } else {
        y = fma(all(1.5403530e-4f), f, all(1.3333558e-3f));
        y = fma(y, f, all(9.6181291e-3f));
        y = fma(y, f, all(5.5504109e-2f));
        y = fma(y, f, all(2.4022651e-1f));
        y = fma(y, f, all(6.9314718e-1f));
        y = fma(y, f, all(1));
    }
    return times_power_of_two(y, whole);
}

// x Φ(x), erf by Abramowitz and Stegun 7.1.26: right to 1.5e-7 of 1; with DEGREE 3 to 3e-4 of the result, a sixth of what bf16 rounds.
template <int DEGREE>
inline V gelu16(V x) {
    const V z = magnitude(x) * all(0.70710678f), below = fma(z, all(0.3275911f), all(1));
    const V t = DEGREE == 3 ? about_one_over(below) : all(1) / below;
    V y = fma(all(1.061405429f), t, all(-1.453152027f));
    y = fma(y, t, all(1.421413741f));
    y = fma(y, t, all(-0.284496736f));
    y = fma(y, t, all(0.254829592f)) * t;
    y = y * exp2_16<DEGREE>(z * z * all(-1.44269504f));  // 1 − erf z
    const V tail = x * all(0.5f) * y;
    return where_negative(x, tail, x - tail);
}

// R rows × NB vectors of 16 columns. A row of words from the left is `stride` words after the one before; the right has a word of each of
// 16 columns every STEP words, and the next 16 columns `block` words further; the upper half of the vectors lies `apart` words beyond that.
template <class Kind, int R, int NB, int STEP>
inline __attribute__((always_inline)) void multiply(
    typename Kind::Sum (&sums)[R][NB], const int32_t* __restrict left, int64_t stride, const int32_t* __restrict right, int words,
    int64_t block, int64_t apart = 0) {
    constexpr int N = NB < TOGETHER ? NB : TOGETHER;  // vectors that stay in registers
    for (int first = 0; first < NB; first += N) {
        typename Kind::Sum sum[R][N];
        for (int r = 0; r < R; r++)
            for (int j = 0; j < N; j++) sum[r][j] = sums[r][first + j];
        const int32_t* at = right;
        for (int w = 0; w < words; w++, at += STEP) {
            Words b[N];
#pragma GCC unroll 4
            for (int j = 0; j < N; j++) b[j] = load_words(at + (first + j) * block + (first + j >= NB / 2 ? apart : 0));
#pragma GCC unroll 6
            for (int r = 0; r < R; r++) {
                const Words a = all_words(left[r * stride + w]);
#pragma GCC unroll 4
                for (int j = 0; j < N; j++) sum[r][j] = Kind::fma(sum[r][j], a, b[j]);
            }
        }
        for (int r = 0; r < R; r++)
            for (int j = 0; j < N; j++) sums[r][first + j] = sum[r][j];
    }
}

}  // namespace
