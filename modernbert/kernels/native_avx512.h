// `native_vectors.h` on AVX-512: 16 floats are one register.

#pragma once

typedef __m512 V;
typedef __m512i Words;
typedef __mmask16 Mask;
constexpr int TOGETHER = 4, SIDE = 64, LEVELS = 127;

inline V all(float x) { return _mm512_set1_ps(x); }
inline V load16(const float* from) { return _mm512_loadu_ps(from); }
inline void store16(float* to, V x) { _mm512_storeu_ps(to, x); }
inline V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
inline V larger(V a, V b) { return _mm512_max_ps(a, b); }
inline V magnitude(V x) { return _mm512_abs_ps(x); }
inline V nearest(V x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline V times_power_of_two(V x, V power) { return _mm512_scalef_ps(x, power); }
inline V about_one_over(V x) { return _mm512_rcp14_ps(x); }
inline float sum_of(V x) { return _mm512_reduce_add_ps(x); }
inline float largest_of(V x) { return _mm512_reduce_max_ps(x); }

inline bool any_above(V x, float bound) { return _mm512_cmp_ps_mask(x, all(bound), _CMP_GT_OQ); }

inline Words all_words(int32_t x) { return _mm512_set1_epi32(x); }
inline Words load_words(const int32_t* from) { return _mm512_loadu_si512(from); }
inline void store_words(int32_t* to, Words x) { _mm512_storeu_si512(to, x); }
inline Words add_words(Words a, Words b) { return _mm512_add_epi32(a, b); }
inline Words lanes() { return _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0); }
inline V as_floats(Words x) { return _mm512_castsi512_ps(x); }
inline V to_floats(Words x) { return _mm512_cvtepi32_ps(x); }
inline __m128i to_bytes(V x) { return _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x)); }

inline Mask below(Words a, Words b) { return _mm512_cmplt_epu32_mask(a, b); }
inline V where(Mask mask, V yes, V no) { return _mm512_mask_blend_ps(mask, no, yes); }
inline V where_negative(V x, V yes, V no) { return where(_mm512_cmp_ps_mask(x, all(0), _CMP_LT_OQ), yes, no); }

inline Words widened(const bf16* from) { return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)from)); }
inline V load16(const bf16* from) { return as_floats(_mm512_slli_epi32(widened(from), 16)); }
inline void store16(bf16* to, V x) {
#ifdef __AVX512BF16__
    _mm256_storeu_si256((__m256i*)to, (__m256i)_mm512_cvtneps_pbh(x));
#else
    Words bits = _mm512_castps_si512(x), odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), all_words(1));
    bits = add_words(bits, add_words(odd, all_words(0x7fff)));
    _mm256_storeu_si256((__m256i*)to, _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16)));
#endif
}

inline void store32(float* to, V a, V b) { store16(to, a), store16(to + 16, b); }
inline void store32(bf16* to, V a, V b) {
#ifdef __AVX512BF16__
    _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(b, a));
#else
    store16(to, a), store16(to + 16, b);
#endif
}

// Of two rows of bf16, the pairs that lie one below the other.
inline Words pairs(const bf16* upper, const bf16* lower) { return _mm512_or_si512(widened(upper), _mm512_slli_epi32(widened(lower), 16)); }

#ifdef __AVX512VNNI__
#define BYTES
inline Words fma_bytes(Words a, Words b, Words sum) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));  // GCC 12 spills the sums of its own intrinsic: half the speed
    return sum;
}
#endif

// 16 rows of 16 words → 16 columns
inline void transpose16(const int32_t* from, int64_t stride, int32_t* to) {
    Words a[16], b[16];
    for (int i = 0; i < 16; i++) a[i] = load_words(from + i * stride);
    for (int i = 0; i < 16; i += 2) b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]), b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            a[i + 2 * j] = _mm512_unpacklo_epi64(b[i + j], b[i + j + 2]);
            a[i + 2 * j + 1] = _mm512_unpackhi_epi64(b[i + j], b[i + j + 2]);
        }
    for (int j = 0; j < 4; j++) {  // of four rows, a has four columns in each quarter
        const Words even = _mm512_shuffle_i32x4(a[j], a[j + 4], 0x88), odd = _mm512_shuffle_i32x4(a[j], a[j + 4], 0xdd);
        const Words even2 = _mm512_shuffle_i32x4(a[j + 8], a[j + 12], 0x88), odd2 = _mm512_shuffle_i32x4(a[j + 8], a[j + 12], 0xdd);
        store_words(to + 16 * j, _mm512_shuffle_i32x4(even, even2, 0x88));
        store_words(to + 16 * (j + 4), _mm512_shuffle_i32x4(odd, odd2, 0x88));
        store_words(to + 16 * (j + 8), _mm512_shuffle_i32x4(even, even2, 0xdd));
        store_words(to + 16 * (j + 12), _mm512_shuffle_i32x4(odd, odd2, 0xdd));
    }
}
