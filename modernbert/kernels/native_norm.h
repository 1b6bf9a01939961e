// Norms, and tokens as a product reads them: floats, bf16, or bytes with a scale.

#pragma once

#include <cmath>
#include <cstring>

#include "native_vectors.h"

namespace {

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

}  // namespace
