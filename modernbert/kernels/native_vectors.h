// 16 floats, or 16 words of 32 bits, at a time: one register of AVX-512, two of AVX2. What `native.cpp` is written in.

#pragma once

#include <immintrin.h>
#include <cstdint>
#include <cstring>

#if defined(__AMX_BF16__) && defined(__AMX_INT8__)
#define TILES
#include <sys/syscall.h>
#include <unistd.h>
#endif

typedef uint16_t bf16;

#ifdef __AVX512F__
#include "native_avx512.h"
#elif defined(__AVX2__) && defined(__FMA__)
#include "native_avx2.h"
#else
#error "needs AVX-512, or AVX2 with FMA"
#endif
