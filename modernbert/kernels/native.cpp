// A layer of the encoder on a CPU with AVX-512 or AVX2: products, attention, norms. Compiled by `native.py` where a compiler is; nothing needs it.
//
// Every product is one inner loop in three kinds: a word of 32 bits from the left (a float, two bf16, four bytes) meets 16 columns on the
// right, packed so that the words of 16 columns lie side by side. Six rows and four vectors of 16 columns stay in registers (AVX2: one). With
// AMX, bf16 and bytes go 32 rows and 32 columns at a time through its tiles instead.
//
// T tokens · K inputs · O outputs · W words of a row of inputs (K, K / 2 or K / 4) · N heads of 64 · D hidden.

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "native_vectors.h"

namespace {

constexpr int ROWS = 6, WIDE = 4, PANEL = 16 * WIDE, HEAD = 64;

struct Float {  // float32
    typedef float Real;
    typedef V Sum;
    static constexpr int PER_WORD = 1, QUERIES = ROWS, DEGREE = 6;
    static inline Sum fma(Sum sum, Words a, Words b) { return ::fma(as_floats(a), as_floats(b), sum); }
    static inline Sum zero() { return all(0); }
};

#ifdef __AVX512BF16__
struct Brain {  // bfloat16, two to a word
    typedef bf16 Real;
    typedef V Sum;
    static constexpr int PER_WORD = 2, QUERIES = ROWS, DEGREE = 3;
    static inline Sum fma(Sum sum, Words a, Words b) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }
    static inline Sum zero() { return all(0); }
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

// 2^x for x ≤ 0; DEGREE 3 is right to 8e-5, enough for a weight in bf16, 6 to the last bits of float32.
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

#ifdef TILES
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
#endif

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

// Sums, or other joins, of a row in four parts, so that one need not wait for the other.
template <class Join>
inline V joined(const float* x, int64_t width, Join join) {
    V a = all(0), b = a, c = a, d = a;
    for (int64_t i = 0; i < width; i += 64) {
        a = join(a, load16(x + i)), b = join(b, load16(x + i + 16));
        c = join(c, load16(x + i + 32)), d = join(d, load16(x + i + 48));
    }
    return join(join(a, b), join(c, d));
}

inline void quantize(const float* x, uint8_t* to, float* scale, int64_t width) {
    const float largest = fmaxf(largest_of(joined(x, width, [](V a, V b) { return larger(a, magnitude(b)); })), 1e-30f);
    *scale = largest / 127;
    const V by = all(127 / largest);
    for (int64_t i = 0; i < width; i += 16) _mm_storeu_si128((__m128i*)(to + i), _mm_xor_si128(to_bytes(load16(x + i) * by), _mm_set1_epi8((char)128)));
}

inline void norm(float* x, const float* weight, float eps, int64_t width) {
    const V mean = all(sum_of(joined(x, width, [](V a, V b) { return a + b; })) / width);
    for (int64_t i = 0; i < width; i += 16) store16(x + i, load16(x + i) - mean);
    V squares[4] = {all(0), all(0), all(0), all(0)};
    for (int64_t i = 0; i < width; i += 64)
        for (int j = 0; j < 4; j++) {
            const V v = load16(x + i + 16 * j);
            squares[j] = fma(v, v, squares[j]);
        }
    const V by = all(1 / sqrtf(sum_of((squares[0] + squares[1]) + (squares[2] + squares[3])) / width + eps));
    for (int64_t i = 0; i < width; i += 16) store16(x + i, load16(x + i) * by * load16(weight + i));
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
    multiply<Kind, R, NB, 16>(sum, q, W, keys, W, 16 * W);
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
        V sum[R][WIDE];
        for (int r = 0; r < R; r++)
            for (int j = 0; j < WIDE; j++) sum[r][j] = load16(o[r] + 16 * j);
        multiply<Kind, R, WIDE, HEAD>(sum, weights, CHUNK, values, words, 16);
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
    for (int r = 0; r < R; r++) {
        const float* row = s_buffer + r * CHUNK;
        typename Kind::Real* weights = (typename Kind::Real*)row;
        const int begin = from[r] > first ? from[r] - first : 0, end = to[r] - first;  // of the keys that it sees; none where end ≤ begin
        const int low = begin / 16, high = end < 16 * blocks ? (end + 15) / 16 : blocks;
        const Words past = add_words(lanes(), all_words(-begin)), span = all_words(end > begin ? end - begin : 0);
        auto seen = [&](int j) { return below(add_words(past, all_words(16 * j)), span); };
        V most = all(-1e30f);
        for (int j = low; j < high; j++) most = larger(most, where(seen(j), load16(row + 16 * j), most));
        const float now = fmaxf(s.most[r], largest_of(most));
        V total = all(0);
        for (int j = 0; j < low && j < blocks; j++) store16(weights + 16 * j, all(0));
        for (int j = low; j < high; j++) {
            const V weight = where(seen(j), exp2_16<Kind::DEGREE>(load16(row + 16 * j) - all(now)), all(0));
            total = total + weight;
            store16(weights + 16 * j, weight);
        }
        for (int j = high > 0 ? high : 0; j < blocks; j++) store16(weights + 16 * j, all(0));
        if (s.total[r] > 0 && now > s.most[r]) {
            const float shrink = exp2f(fmaxf(s.most[r] - now, -126.f));
            s.total[r] *= shrink;
            for (int i = 0; i < HEAD; i += 16) store16(s.o[r] + i, load16(s.o[r] + i) * all(shrink));
        }
        s.total[r] += sum_of(total);
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
        const V a = load16(x + i), b = load16(x + i + HEAD / 2), c = load16(cosines + i) * all(scale), s = load16(sines + i) * all(scale);
        store16(to + i, a * c - b * s);
        store16(to + i + HEAD / 2, b * c + a * s);
    }
}

template <class Kind>
void attend(const Attention& a, int64_t start, int64_t length, int64_t head) {
    typedef typename Kind::Real Real;
    constexpr int PER = Kind::PER_WORD, W = HEAD / PER, R = Kind::QUERIES, KEYS = Meeting<Kind>::KEYS, TILES_OF_GROUP = (GROUP + R - 1) / R;
    auto padded = [](int64_t keys) { return (keys + KEYS - 1) / KEYS * KEYS; };
    const int64_t padded16 = (length + 15) / 16 * 16, room = padded16 + KEYS;  // a chunk may begin at any 16 keys
    int32_t *q = scratch((length + R + 2 * room) * W), *keys = q + (length + R) * W, *values = keys + room * W;
    memset(q + length * W, 0, R * W * 4);
    memset(keys + padded16 * W, 0, (room - padded16) * W * 4);
    memset(values + length / 16 * 16 * W, 0, (room - length / 16 * 16) * W * 4);
    const Real* from = (const Real*)a.qkv + (start * 3 * a.heads + head) * HEAD;
    alignas(64) Real rows[16 * HEAD] = {};  // keys that will be columns
    static const Real nothing[16] = {};
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
            for (int i = 0; i < HEAD; i += 16)
                store_words(values + t / 2 * HEAD + i, pairs(value + i, t + 1 < length ? value + stride + i : nothing));
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
                const V by = all(1 / states[g].total[r]);
                Real* to = (Real*)a.out + ((start + first + g * R + r) * a.heads + head) * HEAD;
                for (int i = 0; i < HEAD; i += 16) store16(to + i, load16(states[g].o[r] + i) * by);
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
