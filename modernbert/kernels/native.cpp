// A layer of the encoder on a CPU with AVX-512: products, attention, norms. Compiled by `native.py` where a compiler is; nothing needs it.
//
// Every product is one inner loop in three kinds: a word of 32 bits from the left (a float, two bf16, four bytes) meets 16 columns on the
// right, packed so that the words of 16 columns lie side by side. Six rows and four vectors of 16 columns stay in registers.
//
// T tokens · K inputs · O outputs · W words of a row of inputs (K, K / 2 or K / 4) · N heads of 64 · D hidden.

#include <immintrin.h>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace {

constexpr int ROWS = 6, WIDE = 4, PANEL = 16 * WIDE, HEAD = 64;
typedef uint16_t bf16;

struct Float {  // float32
    typedef float Real;
    typedef __m512 Sum;
    static constexpr int PER_WORD = 1;
    static inline Sum fma(Sum sum, __m512i a, __m512i b) { return _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum); }
    static inline Sum zero() { return _mm512_setzero_ps(); }
};

#ifdef __AVX512BF16__
struct Brain {  // bfloat16, two to a word
    typedef bf16 Real;
    typedef __m512 Sum;
    static constexpr int PER_WORD = 2;
    static inline Sum fma(Sum sum, __m512i a, __m512i b) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }
    static inline Sum zero() { return _mm512_setzero_ps(); }
};
#endif

#ifdef __AVX512VNNI__
struct Bytes {  // uint8 around 128 from the left, int8 from the right, four to a word; sums are exact
    typedef uint8_t Real;
    typedef __m512i Sum;
    static constexpr int PER_WORD = 4;
    static inline Sum fma(Sum sum, __m512i a, __m512i b) {
        asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));  // GCC 12 spills the sums of its own intrinsic: half the speed
        return sum;
    }
    static inline Sum zero() { return _mm512_setzero_si512(); }
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

// 2^x for x ≤ 0; DEGREE 3 is right to 1e-4, enough for a weight in bf16, 6 to the last bits of float32.
template <int DEGREE>
inline __m512 exp2_16(__m512 x) {
    x = _mm512_max_ps(x, _mm512_set1_ps(-126.f));
    const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), f = _mm512_sub_ps(x, whole);
    __m512 y;
    if (DEGREE == 3) {
        y = _mm512_fmadd_ps(_mm512_set1_ps(0.05580f), f, _mm512_set1_ps(0.24014f));
        y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(0.69315f));
        y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(1.f));
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

// x Φ(x), erf by Abramowitz and Stegun 7.1.26: right to 1.5e-7 of 1
inline __m512 gelu16(__m512 x) {
    const __m512 one = _mm512_set1_ps(1.f), z = _mm512_mul_ps(_mm512_abs_ps(x), _mm512_set1_ps(0.70710678f));
    const __m512 t = _mm512_div_ps(one, _mm512_fmadd_ps(z, _mm512_set1_ps(0.3275911f), one));
    __m512 y = _mm512_fmadd_ps(_mm512_set1_ps(1.061405429f), t, _mm512_set1_ps(-1.453152027f));
    y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(1.421413741f));
    y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(-0.284496736f));
    y = _mm512_mul_ps(_mm512_fmadd_ps(y, t, _mm512_set1_ps(0.254829592f)), t);
    y = _mm512_mul_ps(y, exp2_16<6>(_mm512_mul_ps(_mm512_mul_ps(z, z), _mm512_set1_ps(-1.44269504f))));  // 1 − erf z
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

template <class Kind, int R>
inline void tile(const Product& p, int64_t t, int64_t panel, Ending ending) {
    typename Kind::Sum sum[R][WIDE];
    for (int r = 0; r < R; r++)
        for (int j = 0; j < WIDE; j++) sum[r][j] = Kind::zero();
    // GeGLU: 32 columns of the first half of the outputs, and the same 32 of the second
    const int64_t first = ending == GEGLU ? panel * PANEL / 2 : panel * PANEL, second = ending == GEGLU ? first + p.outputs / 2 : first + PANEL / 2;
    auto at_column = [&](int64_t o) { return o / PANEL * PANEL * p.words + o % PANEL; };
    multiply<Kind, R, WIDE, PANEL, 16>(
        sum, p.x + t * p.words, p.words, p.packed + at_column(first), (int)p.words, at_column(second) - at_column(first) - PANEL / 2);
    for (int r = 0; r < R; r++) {
        __m512 y[WIDE];
        for (int j = 0; j < WIDE; j++) {
            if constexpr (Kind::PER_WORD == 4) {
                const int64_t o = j < WIDE / 2 ? first + 16 * j : second + 16 * (j - WIDE / 2);
                const __m512i whole = _mm512_add_epi32((__m512i)sum[r][j], _mm512_loadu_si512(p.start + o));
                const __m512 scale = _mm512_mul_ps(_mm512_loadu_ps(p.scale + o), _mm512_set1_ps(p.x_scale[t + r]));
                y[j] = _mm512_mul_ps(_mm512_cvtepi32_ps(whole), scale);
            } else {
                y[j] = (__m512)sum[r][j];
            }
        }
        if (ending == ADD) {
            float* to = (float*)p.y + (t + r) * p.outputs + panel * PANEL;
            for (int j = 0; j < WIDE; j++) store16(to + 16 * j, _mm512_add_ps(load16(to + 16 * j), y[j]));
        } else {
            const int vectors = ending == GEGLU ? WIDE / 2 : WIDE;
            const int64_t at = (t + r) * (p.outputs * vectors / WIDE) + panel * 16 * vectors;
            if (ending == GEGLU)
                for (int j = 0; j < vectors; j++) y[j] = _mm512_mul_ps(gelu16(y[j]), y[j + vectors]);
            for (int j = 0; j < vectors; j++)
                p.y_is_float ? store16((float*)p.y + at + 16 * j, y[j]) : store16((bf16*)p.y + at + 16 * j, y[j]);
        }
    }
}

template <class Kind>
void product(const Product& p, int64_t tokens, Ending ending) {
    for (int64_t panel = 0; panel < p.outputs / PANEL; panel++) {
        int64_t t = 0;
        for (; t + ROWS <= tokens; t += ROWS) tile<Kind, ROWS>(p, t, panel, ending);
        switch (tokens - t) {
            case 1: tile<Kind, 1>(p, t, panel, ending); break;
            case 2: tile<Kind, 2>(p, t, panel, ending); break;
            case 3: tile<Kind, 3>(p, t, panel, ending); break;
            case 4: tile<Kind, 4>(p, t, panel, ending); break;
            case 5: tile<Kind, 5>(p, t, panel, ending); break;
        }
    }
}

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
constexpr int GROUP = 8;    // tiles of six queries that meet a chunk one after the other

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

struct State {
    float o[ROWS][HEAD], most[ROWS], total[ROWS];
};

// Six queries meet keys [first, first + 16 blocks) of their row; query r sees those in [from[r], to[r]).
template <class Kind>
inline void meet(State& s, const int32_t* q, const int32_t* keys, const int32_t* values, int first, int blocks, const int* from, const int* to) {
    constexpr int W = HEAD / Kind::PER_WORD, DEGREE = Kind::PER_WORD == 1 ? 6 : 3;
    alignas(64) float s_buffer[ROWS * CHUNK];
    alignas(64) typename Kind::Real p[ROWS * CHUNK];
    keys += (int64_t)first * W;
    int b = 0;
    for (; b + WIDE <= blocks; b += WIDE) scores<Kind, ROWS, WIDE>(q, keys + b * 16 * W, s_buffer + 16 * b);
    if (blocks - b == 1) scores<Kind, ROWS, 1>(q, keys + b * 16 * W, s_buffer + 16 * b);
    if (blocks - b == 2) scores<Kind, ROWS, 2>(q, keys + b * 16 * W, s_buffer + 16 * b);
    if (blocks - b == 3) scores<Kind, ROWS, 3>(q, keys + b * 16 * W, s_buffer + 16 * b);
    __m512 sum[ROWS][WIDE];
    const __m512 lowest = _mm512_set1_ps(-1e30f);
    for (int r = 0; r < ROWS; r++) {
        const float* row = s_buffer + r * CHUNK;
        typename Kind::Real* weights = p + r * CHUNK;
        const int begin = from[r] - first, end = to[r] - first;  // within the chunk; may lie outside
        auto seen = [&](int j) -> __mmask16 {
            const uint32_t left = begin <= 16 * j ? 0xffff : begin >= 16 * j + 16 ? 0 : 0xffff << (begin - 16 * j);
            const uint32_t right = end >= 16 * j + 16 ? 0xffff : end <= 16 * j ? 0 : 0xffff >> (16 * j + 16 - end);
            return (__mmask16)(left & right);
        };
        __m512 most = lowest;
        for (int j = 0; j < blocks; j++) most = _mm512_mask_max_ps(most, seen(j), most, load16(row + 16 * j));
        const float now = fmaxf(s.most[r], _mm512_reduce_max_ps(most));
        const __m512 high = _mm512_set1_ps(now);
        __m512 total = _mm512_setzero_ps();
        for (int j = 0; j < blocks; j++) {
            const __m512 weight = _mm512_maskz_mov_ps(seen(j), exp2_16<DEGREE>(_mm512_sub_ps(load16(row + 16 * j), high)));
            total = _mm512_add_ps(total, weight);
            store16(weights + 16 * j, weight);
        }
        const float shrink = exp2f(fmaxf(s.most[r] - now, -126.f));
        s.total[r] = s.total[r] * shrink + _mm512_reduce_add_ps(total);
        s.most[r] = now;
        for (int j = 0; j < WIDE; j++) sum[r][j] = _mm512_mul_ps(load16(s.o[r] + 16 * j), _mm512_set1_ps(shrink));
    }
    const int words = 16 * blocks / Kind::PER_WORD;
    multiply<Kind, ROWS, WIDE, PANEL, 16>(
        sum, (const int32_t*)p, CHUNK / Kind::PER_WORD, values + (int64_t)first / Kind::PER_WORD * PANEL, words);
    for (int r = 0; r < ROWS; r++)
        for (int j = 0; j < WIDE; j++) store16(s.o[r] + 16 * j, sum[r][j]);
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

inline int64_t padded(int64_t length) { return (length + 15) / 16 * 16; }

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

template <class Kind>
void attend(const Attention& a, int64_t start, int64_t length, int64_t head) {
    typedef typename Kind::Real Real;
    constexpr int PER = Kind::PER_WORD, W = HEAD / PER;
    const int64_t keys_at = (length + ROWS) * W, values_at = keys_at + padded(length) * W, end_at = values_at + padded(length) * W;
    int32_t* q = scratch(end_at);
    int32_t *keys = q + keys_at, *values = q + values_at;
    memset(q + length * W, 0, ROWS * W * 4);
    memset(keys + length / 16 * 16 * W, 0, (padded(length) - length / 16 * 16) * W * 4);
    memset(values + length / 16 * 16 * W, 0, (padded(length) - length / 16 * 16) * W * 4);
    const Real* from = (const Real*)a.qkv + (start * 3 * a.heads + head) * HEAD;
    for (int64_t t = 0; t < length; t++, from += 3 * a.heads * HEAD) {
        alignas(64) float turned[HEAD];
        alignas(64) Real key[HEAD];
        const float *c = a.cosines + t * HEAD / 2, *s = a.sines + t * HEAD / 2;
        turn(from, c, s, 0.125f * 1.44269504f, turned);
        for (int i = 0; i < HEAD; i += 16) store16((Real*)(q + t * W) + i, load16(turned + i));
        turn(from + a.heads * HEAD, c, s, 1.f, turned);
        for (int i = 0; i < HEAD; i += 16) store16(key + i, load16(turned + i));
        int32_t* to = keys + t / 16 * 16 * W + t % 16;
        for (int w = 0; w < W; w++) to[w * 16] = ((const int32_t*)key)[w];
        const Real* value = from + 2 * a.heads * HEAD;
        if constexpr (PER == 1) {
            memcpy(values + t * HEAD, value, HEAD * 4);
        } else {
            Real* at = (Real*)(values + t / 2 * HEAD) + t % 2;
            for (int i = 0; i < HEAD; i++) at[2 * i] = value[i];
        }
    }
    const int group = a.window < 0 ? GROUP : 1;
    static thread_local State states[GROUP];
    for (int64_t first = 0; first < length; first += ROWS * group) {
        const int tiles = (int)((length - first + ROWS - 1) / ROWS < group ? (length - first + ROWS - 1) / ROWS : group);
        memset(states, 0, sizeof states);
        for (int g = 0; g < tiles; g++)
            for (int r = 0; r < ROWS; r++) states[g].most[r] = -1e30f;
        int low = 0, high = (int)length;
        if (a.window >= 0) {
            low = (int)(first > a.window ? (first - a.window) / 16 * 16 : 0);
            high = (int)(first + ROWS + a.window < length ? first + ROWS + a.window : length);
        }
        for (int k = low; k < high; k += CHUNK) {
            const int blocks = (int)(padded(high - k < CHUNK ? high - k : CHUNK) / 16);
            for (int g = 0; g < tiles; g++) {
                int begins[ROWS], ends[ROWS];
                for (int r = 0; r < ROWS; r++) {
                    const int t = (int)(first + g * ROWS + r < length ? first + g * ROWS + r : length - 1);
                    begins[r] = a.window < 0 ? 0 : (int)(t - a.window);
                    ends[r] = a.window < 0 || t + a.window + 1 > length ? (int)length : (int)(t + a.window + 1);
                }
                meet<Kind>(states[g], q + (first + g * ROWS) * W, keys, values, k, blocks, begins, ends);
            }
        }
        for (int g = 0; g < tiles; g++)
            for (int r = 0; r < ROWS && first + g * ROWS + r < length; r++) {
                const __m512 by = _mm512_set1_ps(1 / states[g].total[r]);
                Real* to = (Real*)a.out + ((start + first + g * ROWS + r) * a.heads + head) * HEAD;
                for (int i = 0; i < HEAD; i += 16) store16(to + i, _mm512_mul_ps(load16(states[g].o[r] + i), by));
            }
    }
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

// Weights [O, W] as words → [O / 64, W, 64].
void modernbert_pack(const int32_t* from, int32_t* to, int64_t outputs, int64_t words) {
    for (int64_t o = 0; o < outputs; o++)
        for (int64_t w = 0; w < words; w++) to[(o / PANEL * words + w) * PANEL + o % PANEL] = from[o * words + w];
}

// Every integer has 64 bits. kind: values to a word.
void modernbert_product(
    int64_t kind, int64_t ending, const void* x, const float* x_scale, const int32_t* packed, const float* scale, const int32_t* start, void* y,
    int64_t tokens, int64_t words, int64_t outputs, int64_t y_is_float) {
    const Product p = {(const int32_t*)x, x_scale, packed, scale, start, y, words, outputs, y_is_float};
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
    for (int64_t b = 0; b < rows; b++)
        for (int64_t head = head_from; head < head_to; head++) {
            if (starts[b + 1] == starts[b]) continue;
            if (kind == 1) attend<Float>(a, starts[b], starts[b + 1] - starts[b], head);
#ifdef __AVX512BF16__
            if (kind == 2) attend<Brain>(a, starts[b], starts[b + 1] - starts[b], head);
#endif
        }
}
}
