// Attention of a row's head: some queries at a time meet chunks of keys that stay in the cache, in the whole row or in a window.

#pragma once

#include <cmath>
#include <cstring>

#include "native_product.h"

namespace {

constexpr int CHUNK = 256;  // keys whose scores stay together
constexpr int GROUP = 48;   // queries that meet a chunk one tile after the other
constexpr float UNSEEN = -1e30f;

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
    float o[R][HEAD], most[R];
    V total[R];  // in parts, to be added up
};

// Keys [first, first + 16 blocks) of a row, and those of them that each of R queries sees: query r those in [from[r], to[r]).
struct Chunk {
    int first, blocks;
    const int *from, *to;
    int begin(int r) const { return from[r] > first ? from[r] - first : 0; }
    int end(int r) const { return to[r] - first < 16 * blocks ? to[r] - first : 16 * blocks; }
    bool is_seen(int r) const { return begin(r) < end(r); }
};

// Scores of keys that a query does not see become so low that they weigh nothing.
inline void hide(float* row, const Chunk& chunk, int r) {
    const int begin = chunk.begin(r), end = chunk.end(r);
    const Words span = all_words(end - begin);
    auto cut = [&](int j) {
        const Mask seen = below(add_words(lanes(), all_words(16 * j - begin)), span);
        store16(row + 16 * j, where(seen, load16(row + 16 * j), all(UNSEEN)));
    };
    for (int j = 0; 16 * j < begin; j++) cut(j);
    for (int j = end / 16; j < chunk.blocks; j++) cut(j);
}

template <class Kind, int R>
inline void score(const int32_t* q, const int32_t* keys, const Chunk& chunk, float* scores) {
    Meeting<Kind>::score(q, keys + (int64_t)chunk.first * HEAD / Kind::PER_WORD, chunk.blocks, scores);
    for (int r = 0; r < R; r++)
        if (chunk.is_seen(r)) hide(scores + r * CHUNK, chunk, r);
}

// Weights in the place of their scores, 2^(score − most), in one pass: → whether they may stay. `most` is at first 0, and most rows never need another.
template <class Kind, int R>
inline bool weigh(State<R>& s, float* scores, const Chunk& chunk) {
    bool stay = true;
    V totals[R];
    for (int r = 0; r < R; r++) {
        const float* row = scores + r * CHUNK;
        typename Kind::Real* weights = (typename Kind::Real*)row;
        totals[r] = all(0);
        if (!chunk.is_seen(r)) {
            memset(weights, 0, 16 * chunk.blocks * sizeof *weights);
            continue;
        }
        auto weight = [&, most = all(s.most[r])](int j) { return exp2_16<Kind::DEGREE>(load16(row + 16 * j) - most); };
        for (int j = 0; j < chunk.blocks; j += 2) store32(weights + 16 * j, weight(j), j + 1 < chunk.blocks ? weight(j + 1) : all(0));
        for (int w = 0; w < 16 * chunk.blocks / Kind::PER_WORD; w += 16)  // as they are rounded, so that one that outweighs all others is 1
            totals[r] = Kind::fma(totals[r], load_words((const int32_t*)row + w), Kind::one());
        stay &= !any_above(totals[r], 1e18f) && (any_above(s.total[r], 0) || any_above(totals[r], 1e-6f));  // far from what float32 holds
    }
    for (int r = 0; r < R && stay; r++) s.total[r] = s.total[r] + totals[r];
    return stay;
}

// Makes `most` the greatest score that each query has seen, this chunk's among them; what was summed shrinks.
template <class Kind, int R>
inline void raise(State<R>& s, const float* scores, const Chunk& chunk) {
    for (int r = 0; r < R; r++) {
        if (!chunk.is_seen(r)) continue;
        const bool begun = any_above(s.total[r], 0);
        V most = all(begun ? s.most[r] : UNSEEN);
        for (int j = 0; j < chunk.blocks; j++) most = larger(most, load16(scores + r * CHUNK + 16 * j));
        const float now = largest_of(most);
        if (begun) {
            const V shrink = exp2_16<6>(all(s.most[r] - now));
            s.total[r] = s.total[r] * shrink;
            for (int i = 0; i < HEAD; i += 16) store16(s.o[r] + i, load16(s.o[r] + i) * shrink);
        }
        s.most[r] = now;
    }
}

// A tile of queries meets a chunk.
template <class Kind, int R = Kind::QUERIES>
inline void meet(State<R>& s, const int32_t* q, const int32_t* keys, const int32_t* values, const Chunk& chunk) {
    alignas(64) float scores[R * CHUNK];  // and then weights in their place
    score<Kind, R>(q, keys, chunk, scores);
    if (!weigh<Kind>(s, scores, chunk)) {
        score<Kind, R>(q, keys, chunk, scores);
        raise<Kind>(s, scores, chunk);
        weigh<Kind>(s, scores, chunk);
    }
    Meeting<Kind>::add(s.o, (const int32_t*)scores, values + (int64_t)chunk.first / Kind::PER_WORD * PANEL, 16 * chunk.blocks / Kind::PER_WORD);
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
        for (int part = 0; part < 3; part++)  // queries, keys and values lie far apart, and far from the next token's
            for (size_t byte = 0; byte < HEAD * sizeof(Real); byte += 64)
                _mm_prefetch((const char*)(from + 12 * stride + part * a.heads * HEAD) + byte, _MM_HINT_T0);
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
                meet<Kind>(states[g], q + (first + g * R) * W, keys, values, {k, blocks, begins, ends});
            }
        }
        for (int g = 0; g < group; g++)
            for (int r = 0; r < R && first + g * R + r < length; r++) {
                const V by = all(1 / sum_of(states[g].total[r]));
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
