// A layer of the encoder on a CPU with AVX-512: products, attention, norms. Compiled by `native.py` where a compiler is; nothing needs it.
//
// Every product is one inner loop in three kinds: a word of 32 bits from the left (a float, two bf16, four bytes) meets 16 columns on the
// right, packed so that the words of 16 columns lie side by side. Six rows and four vectors of 16 columns stay in registers. On a chip with
// AMX, bf16 and bytes go 32 rows and 32 columns at a time through its tiles instead, which read the same words.
//
// T tokens · K inputs · O outputs · W words of a row of inputs (K, K / 2 or K / 4) · N heads of 64 · D hidden.

#include <immintrin.h>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#if defined(__AMX_BF16__) && defined(__AMX_INT8__)
#define TILES
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

constexpr int ROWS = 6, WIDE = 4, PANEL = 16 * WIDE, HEAD = 64;
typedef uint16_t bf16;

struct Float {  // float32
    typedef float Real;
    typedef __m512 Sum;
    static constexpr int PER_WORD = 1, QUERIES = ROWS, DEGREE = 6;
    static inline Sum fma(Sum sum, __m512i a, __m512i b) { return _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum); }
    static inline Sum zero() { return _mm512_setzero_ps(); }
};

#ifdef __AVX512BF16__
struct Brain {  // bfloat16, two to a word
    typedef bf16 Real;
    typedef __m512 Sum;
    static constexpr int PER_WORD = 2, QUERIES = ROWS, DEGREE = 3;
    static inline Sum fma(Sum sum, __m512i a, __m512i b) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }
    static inline Sum zero() { return _mm512_setzero_ps(); }
#ifdef TILES
    static inline void fma_tiles() { _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 4, 7); _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7); }
#endif
};
#endif

#ifdef __AVX512VNNI__
struct Bytes {  // uint8 around 128 from the left, int8 from the right, four to a word; sums are exact
    typedef uint8_t Real;
    typedef __m512i Sum;
    static constexpr int PER_WORD = 4, DEGREE = 3;
    static inline Sum fma(Sum sum, __m512i a, __m512i b) {
        asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));  // GCC 12 spills the sums of its own intrinsic: half the speed
        return sum;
    }
    static inline Sum zero() { return _mm512_setzero_si512(); }
#ifdef TILES
    static inline void fma_tiles() { _tile_dpbusd(0, 4, 6); _tile_dpbusd(1, 4, 7); _tile_dpbusd(2, 5, 6); _tile_dpbusd(3, 5, 7); }
#endif
};
#endif

inline __m512 load16(const float* from) { return _mm512_loadu_ps(from); }
inline __m512 load16(const bf16* from) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)from)), 16));
}
inline void store16(float* to, __m512 x) { _mm512_storeu_ps(to, x); }
inline void store16(bf16* to, __m512 x) {
#ifdef __AVX512BF16__
    _mm256_storeu_si256((__m256i*)to, (__m256i)_mm512_cvtneps_pbh(x));
#else
    __m512i bits = _mm512_castps_si512(x), odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    bits = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    _mm256_storeu_si256((__m256i*)to, _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16)));
#endif
}

// 2^x for x ≤ 0; DEGREE 3 is right to 8e-5, enough for a weight in bf16, 6 to the last bits of float32.
template <int DEGREE>
inline __m512 exp2_16(__m512 x) {
    x = _mm512_max_ps(x, _mm512_set1_ps(-60.f));  // lower, products of it fall out of the normal numbers, at 20 times the cost
    const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), f = _mm512_sub_ps(x, whole);
    __m512 y;
    if (DEGREE == 3) {
        y = _mm512_fmadd_ps(_mm512_set1_ps(0.05517f), f, _mm512_set1_ps(0.24261f));
        y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(0.69326f));
        y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(0.99993f));
    } else {
        y = _mm512_fmadd_ps(_mm512_set1_ps(1.5403530e-4f), f, _mm512_set1_ps(1.3333558e-3f));
        y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(9.6181291e-3f));
        y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(5.5504109e-2f));
        y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(2.4022651e-1f));
        y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(6.9314718e-1f));
        y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(1.f));
    }
    return _mm512_scalef_ps(y, whole);
}

// x Φ(x), erf by Abramowitz and Stegun 7.1.26: right to 1.5e-7 of 1; with DEGREE 3 to 3e-4 of the result, a sixth of what bf16 rounds.
template <int DEGREE>
inline __m512 gelu16(__m512 x) {
    const __m512 one = _mm512_set1_ps(1.f), z = _mm512_mul_ps(_mm512_abs_ps(x), _mm512_set1_ps(0.70710678f));
    const __m512 below = _mm512_fmadd_ps(z, _mm512_set1_ps(0.3275911f), one), t = DEGREE == 3 ? _mm512_rcp14_ps(below) : _mm512_div_ps(one, below);
    __m512 y = _mm512_fmadd_ps(_mm512_set1_ps(1.061405429f), t, _mm512_set1_ps(-1.453152027f));
    y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(1.421413741f));
    y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(-0.284496736f));
    y = _mm512_mul_ps(_mm512_fmadd_ps(y, t, _mm512_set1_ps(0.254829592f)), t);
    y = _mm512_mul_ps(y, exp2_16<DEGREE>(_mm512_mul_ps(_mm512_mul_ps(z, z), _mm512_set1_ps(-1.44269504f))));  // 1 − erf z
    const __m512 half = _mm512_mul_ps(x, _mm512_set1_ps(0.5f)), tail = _mm512_mul_ps(half, y);
    const __mmask16 negative = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ);
    return _mm512_mask_blend_ps(negative, _mm512_sub_ps(x, tail), tail);
}

// R rows × NB vectors of 16 columns. A row of words from the left is `stride` words after the one before; the right has a word of each of
// 16 columns every STEP words, and the next 16 columns BLOCK words further; the upper half of the vectors lies `apart` words beyond that.
template <class Kind, int R, int NB, int STEP, int BLOCK>
inline __attribute__((always_inline)) void multiply(
    typename Kind::Sum (&sum)[R][NB], const int32_t* __restrict left, int64_t stride, const int32_t* __restrict right, int words,
    int64_t apart = 0) {
    for (int w = 0; w < words; w++, right += STEP) {
        __m512i b[NB];
#pragma GCC unroll 4
        for (int j = 0; j < NB; j++) b[j] = _mm512_loadu_si512(right + j * BLOCK + (j >= NB / 2 ? apart : 0));
#pragma GCC unroll 6
        for (int r = 0; r < R; r++) {
            const __m512i a = _mm512_set1_epi32(left[r * stride + w]);
#pragma GCC unroll 4
            for (int j = 0; j < NB; j++) sum[r][j] = Kind::fma(sum[r][j], a, b[j]);
        }
    }
}

#ifdef TILES
constexpr int BLOCK = 32;  // and columns: two tiles each way
bool tiles = false;             // whether this process may use them

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
#endif

// What becomes of a product.
enum Ending { KEEP = 0, ADD = 1, GEGLU = 2 };

struct Product {
    const int32_t* x;       // [T, W]
    const float* x_scale;   // [T], bytes only
    const int32_t* packed;  // [O / 64, W, 64]
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
    static inline const int32_t* at(const Product& p, int64_t column) { return p.packed + column / PANEL * PANEL * p.words + column % PANEL; }
};

// A token's sums in a panel, to where they belong.
template <class Kind>
inline void finish(const Product& p, int64_t t, int64_t panel, Ending ending, const Columns& columns, const typename Kind::Sum (&sum)[WIDE]) {
    __m512 y[WIDE];
    for (int j = 0; j < WIDE; j++) {
        if constexpr (Kind::PER_WORD == 4) {
            const int64_t o = j < WIDE / 2 ? columns.first + 16 * j : columns.second + 16 * (j - WIDE / 2);
            const __m512i whole = _mm512_add_epi32((__m512i)sum[j], _mm512_loadu_si512(p.start + o));
            const __m512 scale = _mm512_mul_ps(_mm512_loadu_ps(p.scale + o), _mm512_set1_ps(p.x_scale[t]));
            y[j] = _mm512_mul_ps(_mm512_cvtepi32_ps(whole), scale);
        } else {
            y[j] = (__m512)sum[j];
        }
    }
    if (ending == ADD) {
        float* to = (float*)p.y + t * p.outputs + panel * PANEL;
        for (int j = 0; j < WIDE; j++) store16(to + 16 * j, _mm512_add_ps(load16(to + 16 * j), y[j]));
    } else {
        const int vectors = ending == GEGLU ? WIDE / 2 : WIDE;
        const int64_t at = t * (p.outputs * vectors / WIDE) + panel * 16 * vectors;
        if (ending == GEGLU)
            for (int j = 0; j < vectors; j++) y[j] = _mm512_mul_ps(gelu16<Kind::DEGREE>(y[j]), y[j + vectors]);
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
    const int32_t *right = Columns::at(p, columns.first), *second = Columns::at(p, columns.second);
    multiply<Kind, R, WIDE, PANEL, 16>(sum, p.x + t * p.words, p.words, right, (int)p.words, second - right - PANEL / 2);
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
#ifndef SLAB
#define SLAB 192
#endif

// As `product`, a block of rows and a panel after the other, both in tiles that lie one behind the other: [T / 32, W / 16, 32, 16] and
// [O / 32, W / 16, 2, 16, 16].
template <class Kind>
void product_tiles(const Product& p, int64_t tokens, Ending ending) {
    const Tiles shaped;
    const int64_t blocks = (tokens + BLOCK - 1) / BLOCK, W = p.words;
    int32_t* left = scratch(blocks * BLOCK * W);  // sums of the rows behind the last token are not read
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t w = 0; w < W; w += 16)
            _mm512_storeu_si512(left + (t / BLOCK * W + w) * BLOCK + t % BLOCK * 16, _mm512_loadu_si512(p.x + t * W + w));
    for (int64_t panel = 0; panel < p.outputs / PANEL; panel++) {
        const Columns columns(p, panel, ending);
        for (int64_t block = 0; block < blocks; block++) {
#ifdef PREFETCH
            const Columns next(p, panel + 1 < p.outputs / PANEL ? panel + 1 : 0, ending);
            const int64_t share = (BLOCK * W / 16 + blocks - 1) / blocks;
            for (int64_t i = block * share; i < (block + 1) * share; i++) {
                _mm_prefetch((const char*)(p.packed + next.first * W + i * 16), _MM_HINT_T1);
                _mm_prefetch((const char*)(p.packed + next.second * W + i * 16), _MM_HINT_T1);
            }
#endif
            alignas(64) int32_t sums[BLOCK * PANEL];
            for (int64_t w = 0; w < W; w += SLAB)
                for (int half = 0; half < 2; half++) {
                    const int32_t* right = p.packed + (half ? columns.second : columns.first) * W;
                    const Operand x = {left + (block * W + w) * BLOCK, 16, 512, 256}, weight = {right + w * BLOCK, 16, 512, 256};
                    multiply_tiles<Kind>(sums + half * BLOCK, PANEL, x, weight, W - w < SLAB ? W - w : SLAB, w == 0);
                }
            for (int64_t r = 0; r < BLOCK && block * BLOCK + r < tokens; r++) {
                typename Kind::Sum sum[WIDE];
                for (int j = 0; j < WIDE; j++) sum[j] = (typename Kind::Sum)_mm512_load_si512(sums + r * PANEL + 16 * j);
                finish<Kind>(p, block * BLOCK + r, panel, ending, columns, sum);
            }
        }
    }
}
#endif

// Sums, or other joins, of a row in four parts, so that one need not wait for the other.
template <class Join>
inline __m512 joined(const float* x, int64_t width, Join join) {
    __m512 a = _mm512_setzero_ps(), b = a, c = a, d = a;
    for (int64_t i = 0; i < width; i += 64) {
        a = join(a, load16(x + i)), b = join(b, load16(x + i + 16));
        c = join(c, load16(x + i + 32)), d = join(d, load16(x + i + 48));
    }
    return join(join(a, b), join(c, d));
}

inline void quantize(const float* x, uint8_t* to, float* scale, int64_t width) {
    const __m512 most = joined(x, width, [](__m512 a, __m512 b) { return _mm512_max_ps(a, _mm512_abs_ps(b)); });
    const float largest = fmaxf(_mm512_reduce_max_ps(most), 1e-30f);
    *scale = largest / 127;
    const __m512 by = _mm512_set1_ps(127 / largest);
    for (int64_t i = 0; i < width; i += 16) {
        const __m512i whole = _mm512_cvtps_epi32(_mm512_mul_ps(load16(x + i), by));
        const __m128i bytes = _mm512_cvtepi32_epi8(whole);
        _mm_storeu_si128((__m128i*)(to + i), _mm_xor_si128(bytes, _mm_set1_epi8((char)128)));
    }
}

inline void norm(float* x, const float* weight, float eps, int64_t width) {
    const __m512 sum = joined(x, width, [](__m512 a, __m512 b) { return _mm512_add_ps(a, b); });
    const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / width);
    for (int64_t i = 0; i < width; i += 16) store16(x + i, _mm512_sub_ps(load16(x + i), mean));
    __m512 squares[4] = {};
    for (int64_t i = 0; i < width; i += 64)
        for (int j = 0; j < 4; j++) {
            const __m512 v = load16(x + i + 16 * j);
            squares[j] = _mm512_fmadd_ps(v, v, squares[j]);
        }
    const __m512 all = _mm512_add_ps(_mm512_add_ps(squares[0], squares[1]), _mm512_add_ps(squares[2], squares[3]));
    const __m512 by = _mm512_set1_ps(1 / sqrtf(_mm512_reduce_add_ps(all) / width + eps));
    for (int64_t i = 0; i < width; i += 16) store16(x + i, _mm512_mul_ps(_mm512_mul_ps(load16(x + i), by), load16(weight + i)));
}

constexpr int WIDEST = 8192;  // of a row that is normed or quantised

template <class Real>
void norms(int64_t kind, const Real* x, const float* weight, float eps, void* y, float* y_scale, int64_t tokens, int64_t width) {
    alignas(64) float row[WIDEST];
    for (int64_t t = 0; t < tokens; t++) {
        for (int64_t i = 0; i < width; i += 16) store16(row + i, load16(x + t * width + i));
        if (weight) norm(row, weight, eps, width);
        if (kind == 1) memcpy((float*)y + t * width, row, width * 4);
        if (kind == 2)
            for (int64_t i = 0; i < width; i += 16) store16((bf16*)y + t * width + i, load16(row + i));
        if (kind == 4) quantize(row, (uint8_t*)y + t * width, y_scale + t, width);
    }
}

// ---- attention ----

constexpr int CHUNK = 256;  // keys whose scores stay together
constexpr int GROUP = 48;   // queries that meet a chunk one tile after the other

template <class Kind, int R, int NB>
inline void scores(const int32_t* q, const int32_t* keys, float* to) {
    typename Kind::Sum sum[R][NB];
    for (int r = 0; r < R; r++)
        for (int j = 0; j < NB; j++) sum[r][j] = Kind::zero();
    constexpr int W = HEAD / Kind::PER_WORD;
    multiply<Kind, R, NB, 16, 16 * W>(sum, q, W, keys, W);
    for (int r = 0; r < R; r++)
        for (int j = 0; j < NB; j++) store16(to + r * CHUNK + 16 * j, sum[r][j]);
}

// The two products of attention, with registers: scores of `blocks` times 16 keys, and values by their weights, added to o.
template <class Kind>
struct Meeting {
    static constexpr int R = Kind::QUERIES, W = HEAD / Kind::PER_WORD, KEYS = 16;
    static inline void score(const int32_t* q, const int32_t* keys, int blocks, float* to) {
        int b = 0;
        for (; b + WIDE <= blocks; b += WIDE) scores<Kind, R, WIDE>(q, keys + b * 16 * W, to + 16 * b);
        if (blocks - b == 1) scores<Kind, R, 1>(q, keys + b * 16 * W, to + 16 * b);
        if (blocks - b == 2) scores<Kind, R, 2>(q, keys + b * 16 * W, to + 16 * b);
        if (blocks - b == 3) scores<Kind, R, 3>(q, keys + b * 16 * W, to + 16 * b);
    }
    static inline void add(float (&o)[R][HEAD], const int32_t* weights, const int32_t* values, int words) {
        __m512 sum[R][WIDE];
        for (int r = 0; r < R; r++)
            for (int j = 0; j < WIDE; j++) sum[r][j] = load16(o[r] + 16 * j);
        multiply<Kind, R, WIDE, PANEL, 16>(sum, weights, CHUNK, values, words);
        for (int r = 0; r < R; r++)
            for (int j = 0; j < WIDE; j++) store16(o[r] + 16 * j, sum[r][j]);
    }
};

#ifdef TILES
struct Tiled : Brain {
    static constexpr int QUERIES = BLOCK;
};

template <>
struct Meeting<Tiled> {  // with tiles
    static constexpr int R = BLOCK, W = HEAD / 2, KEYS = 32;
    static inline void score(const int32_t* q, const int32_t* keys, int blocks, float* to) {
        for (int b = 0; b < blocks; b += 2)
            multiply_tiles<Brain>(to + 16 * b, CHUNK, {q, W, 16, 16 * W}, {keys + b * 16 * W, 16, 256, 16 * W}, W, true);
    }
    static inline void add(float (&o)[R][HEAD], const int32_t* weights, const int32_t* values, int words) {
        for (int half = 0; half < HEAD; half += 32)
            multiply_tiles<Brain>(o[0] + half, HEAD, {weights, CHUNK, 16, 16 * CHUNK}, {values + half, HEAD, 16 * HEAD, 16}, words, false);
    }
};
#endif

template <int R>
struct State {
    float o[R][HEAD], most[R], total[R];
};

// A tile of queries meets keys [first, first + 16 blocks) of its row; query r sees those in [from[r], to[r]).
template <class Kind, int R = Kind::QUERIES>
inline void meet(State<R>& s, const int32_t* q, const int32_t* keys, const int32_t* values, int first, int blocks, const int* from, const int* to) {
    constexpr int W = HEAD / Kind::PER_WORD;
    alignas(64) float s_buffer[R * CHUNK];  // scores, and then weights in their place
    Meeting<Kind>::score(q, keys + (int64_t)first * W, blocks, s_buffer);
    const __m512 lowest = _mm512_set1_ps(-1e30f);
    const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    for (int r = 0; r < R; r++) {
        const float* row = s_buffer + r * CHUNK;
        typename Kind::Real* weights = (typename Kind::Real*)row;
        const int begin = from[r] > first ? from[r] - first : 0, end = to[r] - first;  // of the keys that it sees; none where end ≤ begin
        const int low = begin / 16, high = end < 16 * blocks ? (end + 15) / 16 : blocks;
        const __m512i past = _mm512_sub_epi32(lanes, _mm512_set1_epi32(begin)), span = _mm512_set1_epi32(end > begin ? end - begin : 0);
        auto seen = [&](int j) { return _mm512_cmplt_epu32_mask(_mm512_add_epi32(past, _mm512_set1_epi32(16 * j)), span); };
        __m512 most = lowest;
        for (int j = low; j < high; j++) most = _mm512_mask_max_ps(most, seen(j), most, load16(row + 16 * j));
        const float now = fmaxf(s.most[r], _mm512_reduce_max_ps(most));
        const __m512 top = _mm512_set1_ps(now);
        __m512 total = _mm512_setzero_ps();
        for (int j = 0; j < low && j < blocks; j++) store16(weights + 16 * j, total);
        for (int j = low; j < high; j++) {
            const __m512 weight = _mm512_maskz_mov_ps(seen(j), exp2_16<Kind::DEGREE>(_mm512_sub_ps(load16(row + 16 * j), top)));
            total = _mm512_add_ps(total, weight);
            store16(weights + 16 * j, weight);
        }
        for (int j = high > 0 ? high : 0; j < blocks; j++) store16(weights + 16 * j, _mm512_setzero_ps());
        if (s.total[r] > 0 && now > s.most[r]) {
            const float shrink = exp2f(fmaxf(s.most[r] - now, -126.f));
            s.total[r] *= shrink;
            for (int j = 0; j < WIDE; j++) store16(s.o[r] + 16 * j, _mm512_mul_ps(load16(s.o[r] + 16 * j), _mm512_set1_ps(shrink)));
        }
        s.total[r] += _mm512_reduce_add_ps(total);
        s.most[r] = now;
    }
    Meeting<Kind>::add(
        s.o, (const int32_t*)s_buffer, values + (int64_t)first / Kind::PER_WORD * PANEL, 16 * blocks / Kind::PER_WORD);
}

struct Attention {
    const void* qkv;  // [T, 3, N, 64]
    const float *cosines, *sines;  // [L, 32]
    const int32_t* starts;  // [B + 1]
    void* out;  // [T, N, 64]
    int64_t rows, heads, window;  // window −1: the whole row
};

template <class Real>
inline void turn(const Real* x, const float* cosines, const float* sines, float scale, float* to) {
    for (int i = 0; i < HEAD / 2; i += 16) {
        const __m512 a = load16(x + i), b = load16(x + i + HEAD / 2), by = _mm512_set1_ps(scale);
        const __m512 c = _mm512_mul_ps(load16(cosines + i), by), s = _mm512_mul_ps(load16(sines + i), by);
        store16(to + i, _mm512_fmsub_ps(a, c, _mm512_mul_ps(b, s)));
        store16(to + i + HEAD / 2, _mm512_fmadd_ps(b, c, _mm512_mul_ps(a, s)));
    }
}

// 16 rows of 16 words → 16 columns
inline void transpose16(const int32_t* from, int64_t stride, int32_t* to) {
    __m512i a[16], b[16];
    for (int i = 0; i < 16; i++) a[i] = _mm512_loadu_si512(from + i * stride);
    for (int i = 0; i < 16; i += 2) b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]), b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            a[i + 2 * j] = _mm512_unpacklo_epi64(b[i + j], b[i + j + 2]);
            a[i + 2 * j + 1] = _mm512_unpackhi_epi64(b[i + j], b[i + j + 2]);
        }
    for (int j = 0; j < 4; j++) {  // of four rows, a has four columns in each quarter
        const __m512i even = _mm512_shuffle_i32x4(a[j], a[j + 4], 0x88), odd = _mm512_shuffle_i32x4(a[j], a[j + 4], 0xdd);
        const __m512i even2 = _mm512_shuffle_i32x4(a[j + 8], a[j + 12], 0x88), odd2 = _mm512_shuffle_i32x4(a[j + 8], a[j + 12], 0xdd);
        _mm512_storeu_si512(to + 16 * j, _mm512_shuffle_i32x4(even, even2, 0x88));
        _mm512_storeu_si512(to + 16 * (j + 4), _mm512_shuffle_i32x4(odd, odd2, 0x88));
        _mm512_storeu_si512(to + 16 * (j + 8), _mm512_shuffle_i32x4(even, even2, 0xdd));
        _mm512_storeu_si512(to + 16 * (j + 12), _mm512_shuffle_i32x4(odd, odd2, 0xdd));
    }
}

template <class Kind>
void attend(const Attention& a, int64_t start, int64_t length, int64_t head) {
    typedef typename Kind::Real Real;
    constexpr int PER = Kind::PER_WORD, W = HEAD / PER, R = Kind::QUERIES, KEYS = Meeting<Kind>::KEYS, TILES_OF_GROUP = (GROUP + R - 1) / R;
    auto padded = [](int64_t keys) { return (keys + KEYS - 1) / KEYS * KEYS; };
    const int64_t padded16 = (length + 15) / 16 * 16, all = padded16 + KEYS;  // a chunk may begin at any 16 keys
    int32_t *q = scratch((length + R + 2 * all) * W), *keys = q + (length + R) * W, *values = keys + all * W;
    memset(q + length * W, 0, R * W * 4);
    memset(keys + padded16 * W, 0, (all - padded16) * W * 4);
    memset(values + length / 16 * 16 * W, 0, (all - length / 16 * 16) * W * 4);
    const Real* from = (const Real*)a.qkv + (start * 3 * a.heads + head) * HEAD;
    alignas(64) Real rows[16 * HEAD] = {};  // keys that will be columns
    const int64_t stride = 3 * a.heads * HEAD;
    for (int64_t t = 0; t < length; t++, from += stride) {
        alignas(64) float turned[HEAD];
        const float *c = a.cosines + t * HEAD / 2, *s = a.sines + t * HEAD / 2;
        turn(from, c, s, 0.125f * 1.44269504f, turned);
        for (int i = 0; i < HEAD; i += 16) store16((Real*)(q + t * W) + i, load16(turned + i));
        turn(from + a.heads * HEAD, c, s, 1.f, turned);
        for (int i = 0; i < HEAD; i += 16) store16(rows + t % 16 * HEAD + i, load16(turned + i));
        if (t % 16 == 15 || t + 1 == length)  // keys behind the last are finite, and no one sees them
            for (int w = 0; w < W; w += 16) transpose16((int32_t*)rows + w, W, keys + (t / 16 * W + w) * 16);
        const Real* value = from + 2 * a.heads * HEAD;
        if constexpr (PER == 1) {
            memcpy(values + t * HEAD, value, HEAD * 4);
        } else if (t % 2 == 0) {
            for (int i = 0; i < HEAD; i += 16) {
                __m512i pair = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)(value + i)));
                if (t + 1 < length) {
                    const __m512i next = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)(value + stride + i)));
                    pair = _mm512_or_si512(pair, _mm512_slli_epi32(next, 16));
                }
                _mm512_storeu_si512(values + t / 2 * HEAD + i, pair);
            }
        }
    }
    const int most = a.window < 0 ? TILES_OF_GROUP : 1;
    static thread_local State<R> states[TILES_OF_GROUP];
    for (int64_t first = 0; first < length; first += R * most) {
        const int group = (int)((length - first + R - 1) / R < most ? (length - first + R - 1) / R : most);
        memset(states, 0, group * sizeof *states);
        for (int g = 0; g < group; g++)
            for (int r = 0; r < R; r++) states[g].most[r] = -1e30f;
        int low = 0, high = (int)length;
        if (a.window >= 0) {
            low = (int)(first > a.window ? (first - a.window) / 16 * 16 : 0);
            high = (int)(first + R + a.window < length ? first + R + a.window : length);
        }
        for (int k = low; k < high; k += CHUNK) {
            const int blocks = (int)(padded(high - k < CHUNK ? high - k : CHUNK) / 16);
            for (int g = 0; g < group; g++) {
                int begins[R], ends[R];
                for (int r = 0; r < R; r++) {
                    const int t = (int)(first + g * R + r < length ? first + g * R + r : length - 1);
                    begins[r] = a.window < 0 ? 0 : (int)(t - a.window);
                    ends[r] = a.window < 0 || t + a.window + 1 > length ? (int)length : (int)(t + a.window + 1);
                }
                meet<Kind>(states[g], q + (first + g * R) * W, keys, values, k, blocks, begins, ends);
            }
        }
        for (int g = 0; g < group; g++)
            for (int r = 0; r < R && first + g * R + r < length; r++) {
                const __m512 by = _mm512_set1_ps(1 / states[g].total[r]);
                Real* to = (Real*)a.out + ((start + first + g * R + r) * a.heads + head) * HEAD;
                for (int i = 0; i < HEAD; i += 16) store16(to + i, _mm512_mul_ps(load16(states[g].o[r] + i), by));
            }
    }
}

template <class Kind>
void attend_all(const Attention& a, int64_t head_from, int64_t head_to) {
    for (int64_t b = 0; b < a.rows; b++)
        for (int64_t head = head_from; head < head_to; head++)
            if (a.starts[b + 1] > a.starts[b]) attend<Kind>(a, a.starts[b], a.starts[b + 1] - a.starts[b], head);
}

}  // namespace

extern "C" {

// What was compiled: 1 float32, 2 bf16, 4 bytes.
int modernbert_kinds() {
    int kinds = 1;
#ifdef __AVX512BF16__
    kinds |= 2;
#endif
#ifdef __AVX512VNNI__
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

// Weights [O, W] as words → [O / 64, W, 64], or as tiles; which of the two it was.
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
        for (int64_t w = 0; w < words; w++) to[(o / PANEL * words + w) * PANEL + o % PANEL] = from[o * words + w];
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
#ifdef __AVX512VNNI__
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
