// Norms, and tokens as a product reads them: floats, bf16, or bytes with a scale.

#pragma once

#include <cmath>
#include <cstring>

#include "native_vectors.h"

namespace {

// What becomes of each number of a row, summed or joined otherwise, in four parts, so that one need not wait for the other.
template <class Real, class Map, class Join>
inline V joined(const Real* x, int64_t width, Map map, Join join) {
    V part[4] = {map(load16(x)), map(load16(x + 16)), map(load16(x + 32)), map(load16(x + 48))};
    for (int64_t i = 64; i < width; i += 64)
        for (int j = 0; j < 4; j++) part[j] = join(part[j], map(load16(x + i + 16 * j)));
    return join(join(part[0], part[1]), join(part[2], part[3]));
}

template <class Real>
inline void quantize(const Real* x, uint8_t* to, float* scale, int64_t width) {
    const float largest = fmaxf(largest_of(joined(x, width, magnitude, larger)), 1e-30f);
    *scale = largest / 127;
    const V by = all(127 / largest);
    for (int64_t i = 0; i < width; i += 16) _mm_storeu_si128((__m128i*)(to + i), _mm_xor_si128(to_bytes(load16(x + i) * by), _mm_set1_epi8((char)128)));
}

template <class Real, class To>
inline void norm(const Real* x, const float* weight, float eps, To* to, int64_t width) {
    auto sum = [](V a, V b) { return a + b; };
    const V mean = all(sum_of(joined(x, width, [](V a) { return a; }, sum)) / width);
    const V squares = joined(x, width, [=](V a) { return (a - mean) * (a - mean); }, sum);
    const V by = all(1 / sqrtf(sum_of(squares) / width + eps));
    for (int64_t i = 0; i < width; i += 16) store16(to + i, (load16(x + i) - mean) * by * load16(weight + i));
}

template <class Real, class To>
inline void convert(const Real* x, const float* weight, float eps, To* to, int64_t width) {
    if (weight) return norm(x, weight, eps, to, width);
    for (int64_t i = 0; i < width; i += 16) store16(to + i, load16(x + i));
}

constexpr int WIDEST = 8192;  // of a row that is normed or quantised

template <class Real>
void norms(int64_t kind, const Real* x, const float* weight, float eps, void* y, float* y_scale, int64_t tokens, int64_t width) {
    alignas(64) float row[WIDEST];
    for (int64_t t = 0; t < tokens; t++, x += width) {
        if (kind == 1) convert(x, weight, eps, (float*)y + t * width, width);
        if (kind == 2) convert(x, weight, eps, (bf16*)y + t * width, width);
        if (kind == 4 && weight) {
            norm(x, weight, eps, row, width);
            quantize(row, (uint8_t*)y + t * width, y_scale + t, width);
        }
        if (kind == 4 && !weight) quantize(x, (uint8_t*)y + t * width, y_scale + t, width);
    }
}

}  // namespace
