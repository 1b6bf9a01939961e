// `native_vectors.h` on AVX2: 16 floats are two registers.

#pragma once

struct V {
    __m256 a, b;
};
struct Words {
    __m256i a, b;
};
typedef Words Mask;
constexpr int TOGETHER = 1, SIDE = 16, LEVELS = 64;  // with ± 64, two products of bytes fit into 16 bits

inline V operator+(V x, V y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
inline V operator-(V x, V y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
inline V operator*(V x, V y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
inline V operator/(V x, V y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
inline V all(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline V load16(const float* from) { return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)}; }
inline void store16(float* to, V x) { _mm256_storeu_ps(to, x.a), _mm256_storeu_ps(to + 8, x.b); }
inline V fma(V x, V y, V z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
inline V larger(V x, V y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
inline V magnitude(V x) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.f), x.a), _mm256_andnot_ps(_mm256_set1_ps(-0.f), x.b)}; }
inline __m256 nearest(__m256 x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline V nearest(V x) { return {nearest(x.a), nearest(x.b)}; }
inline __m256 times_power_of_two(__m256 x, __m256 power) {  // where x is near 1, and the power not below −100; beyond 2^127 it is that
    const __m256i whole = _mm256_cvtps_epi32(_mm256_min_ps(power, _mm256_set1_ps(127)));
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(x), _mm256_slli_epi32(whole, 23)));
}
inline V times_power_of_two(V x, V power) { return {times_power_of_two(x.a, power.a), times_power_of_two(x.b, power.b)}; }
inline V about_one_over(V x) { return all(1) / x; }
inline float sum_of(V x) {
    const __m256 y = _mm256_add_ps(x.a, x.b);
    __m128 z = _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
    z = _mm_add_ps(z, _mm_movehl_ps(z, z));
    return _mm_cvtss_f32(_mm_add_ss(z, _mm_movehdup_ps(z)));
}
inline float largest_of(V x) {
    const __m256 y = _mm256_max_ps(x.a, x.b);
    __m128 z = _mm_max_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
    z = _mm_max_ps(z, _mm_movehl_ps(z, z));
    return _mm_cvtss_f32(_mm_max_ss(z, _mm_movehdup_ps(z)));
}

inline bool any_above(V x, float bound) {
    const __m256 b = _mm256_set1_ps(bound);
    return _mm256_movemask_ps(_mm256_or_ps(_mm256_cmp_ps(x.a, b, _CMP_GT_OQ), _mm256_cmp_ps(x.b, b, _CMP_GT_OQ)));
}

inline Words all_words(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
inline Words load_words(const int32_t* from) { return {_mm256_loadu_si256((const __m256i*)from), _mm256_loadu_si256((const __m256i*)from + 1)}; }
inline void store_words(int32_t* to, Words x) { _mm256_storeu_si256((__m256i*)to, x.a), _mm256_storeu_si256((__m256i*)to + 1, x.b); }
inline Words add_words(Words x, Words y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
inline Words lanes() { return {_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15)}; }
inline V as_floats(Words x) { return {_mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b)}; }
inline V to_floats(Words x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
inline __m128i to_bytes(V x) {
    const __m256i halves = _mm256_packs_epi32(_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b));  // by 128 bits: a0 b0 | a1 b1
    const __m256i ordered = _mm256_permute4x64_epi64(halves, 0xd8);
    return _mm_packs_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1));
}

inline Mask below(Words x, Words y) {  // without signs
    const __m256i top = _mm256_set1_epi32(INT32_MIN);
    return {_mm256_cmpgt_epi32(_mm256_xor_si256(y.a, top), _mm256_xor_si256(x.a, top)),
            _mm256_cmpgt_epi32(_mm256_xor_si256(y.b, top), _mm256_xor_si256(x.b, top))};
}
inline V where(Mask mask, V yes, V no) {
    const V m = as_floats(mask);
    return {_mm256_blendv_ps(no.a, yes.a, m.a), _mm256_blendv_ps(no.b, yes.b, m.b)};
}
inline V where_negative(V x, V yes, V no) { return {_mm256_blendv_ps(no.a, yes.a, x.a), _mm256_blendv_ps(no.b, yes.b, x.b)}; }

inline V load16(const bf16* from) {
    alignas(64) uint32_t bits[16];
    for (int i = 0; i < 16; i++) bits[i] = (uint32_t)from[i] << 16;
    return as_floats(load_words((const int32_t*)bits));
}
inline void store16(bf16* to, V x) {
    alignas(64) uint32_t bits[16];
    store16((float*)bits, x);
    for (int i = 0; i < 16; i++) to[i] = (bf16)((bits[i] + 0x7fff + (bits[i] >> 16 & 1)) >> 16);
}

template <class Real>
inline void store32(Real* to, V x, V y) { store16(to, x), store16(to + 16, y); }

#define BYTES
inline __m256i fma_bytes(__m256i a, __m256i b, __m256i sum) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1)));
}
inline Words fma_bytes(Words a, Words b, Words sum) { return {fma_bytes(a.a, b.a, sum.a), fma_bytes(a.b, b.b, sum.b)}; }

inline void transpose16(const int32_t* from, int64_t stride, int32_t* to) {
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 16; j++) to[16 * j + i] = from[i * stride + j];
}
