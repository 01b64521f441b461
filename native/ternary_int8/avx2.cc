// Eight outputs in a register. A sum of two products is at most 2 * 255 * 2 = 1020, so 16 bits hold eight steps of four such
// sums, 32640, before they become sums of 32 bits: exact, where weights of 8 bits would be cut off.
#include "cpu.h"
#include "ternary_int8/kernels.h"

#ifdef GOSSAMER_X86
#include <immintrin.h>

#include <algorithm>
#include <cstring>

#define GOSSAMER_AVX2 GOSSAMER_TARGET("avx2,fma")

namespace gossamer::ternary_int8 {
namespace {

constexpr int64_t kSteps = 8;

template <int points>
GOSSAMER_AVX2 void tile(const uint8_t* block, int64_t steps, const uint8_t* const* x, int32_t* sums) {
  const __m256i mask = _mm256_set1_epi8(3), ones = _mm256_set1_epi16(1);
  for (int half = 0; half < 2; ++half) {
    __m256i sum[points];
    for (auto& one : sum) one = _mm256_setzero_si256();
    for (int64_t from = 0; from < steps; from += kSteps) {
      const int64_t end = std::min(from + kSteps, steps);
      __m256i pairs[points];
      for (auto& one : pairs) one = _mm256_setzero_si256();
      for (int64_t step = from; step < end; ++step) {
        const __m256i word = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block + step * kStep + 32 * half));
#pragma GCC unroll 4
        for (int g = 0; g < 4; ++g) {
          const __m256i u = _mm256_and_si256(_mm256_srli_epi16(word, 2 * g), mask);
#pragma GCC unroll 4
          for (int p = 0; p < points; ++p) {
            int32_t four;
            std::memcpy(&four, x[p] + step * kInputs + 4 * g, sizeof four);
            pairs[p] = _mm256_add_epi16(pairs[p], _mm256_maddubs_epi16(_mm256_set1_epi32(four), u));
          }
        }
      }
      for (int p = 0; p < points; ++p) sum[p] = _mm256_add_epi32(sum[p], _mm256_madd_epi16(pairs[p], ones));
    }
    for (int p = 0; p < points; ++p)
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + p * kOutputs + 8 * half), sum[p]);
  }
}

// There are registers for four points.
template <int points>
GOSSAMER_AVX2 void halves(const uint8_t* block, int64_t steps, const uint8_t* const* x, int32_t* sums) {
  tile<4>(block, steps, x, sums);
  tile<points - 4>(block, steps, x + 4, sums + 4 * kOutputs);
}

}  // namespace

GOSSAMER_AVX2
int32_t total_avx2(const uint8_t* row, int64_t count) {
  __m128i sum = _mm_setzero_si128();
  for (int64_t k = 0; k < count; k += kInputs)
    sum = _mm_add_epi64(sum, _mm_sad_epu8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(row + k)), _mm_setzero_si128()));
  return _mm_cvtsi128_si32(sum) + _mm_extract_epi32(sum, 2);
}

Kernels avx2() { return {{tile<1>, tile<2>, tile<3>, tile<4>, halves<5>, halves<6>, halves<7>, halves<8>}, total_avx2}; }

}  // namespace gossamer::ternary_int8
#endif
