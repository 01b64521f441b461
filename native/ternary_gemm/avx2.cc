// Eight outputs in a register: one permutation looks up the sum of the inputs that meet the first value, another that
// of those that meet the second.
#include "cpu.h"
#include "ternary_gemm/kernels.h"

#ifdef GOSSAMER_X86
#include <immintrin.h>

#define GOSSAMER_AVX2 GOSSAMER_TARGET("avx2,fma")

namespace gossamer::ternary {
namespace {

GOSSAMER_AVX2
void fill(const Weights& weights, const float* x, int64_t step, int64_t count, int64_t apart, float* tables,
          int64_t size) {
  __m256 part[kInputs][2];
  for (int j = 0; j < kInputs; ++j)
    for (int half = 0; half < 2; ++half) part[j][half] = _mm256_load_ps(weights.parts[j] + 8 * half);
  for (int64_t n = 0; n < count; ++n, x += apart, tables += size) {
    const __m256 x0 = _mm256_set1_ps(x[0]), x1 = _mm256_set1_ps(x[step]), x2 = _mm256_set1_ps(x[2 * step]);
    for (int half = 0; half < 2; ++half) {
      const __m256 two = _mm256_fmadd_ps(part[1][half], x1, _mm256_mul_ps(part[0][half], x0));
      _mm256_store_ps(tables + 8 * half, _mm256_fmadd_ps(part[2][half], x2, two));
    }
  }
}

template <int blocks, int points>
struct Registers {
  __m256 sum[points][blocks];
  __m256i word[blocks];

  GOSSAMER_AVX2 __attribute__((always_inline)) void add(const float* const* from, int64_t table) {
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
#pragma GCC unroll 2
      for (int p = 0; p < points; ++p) {
        const __m256 entries = _mm256_load_ps(from[p] + table * kNarrow.entries + 8 * half);
#pragma GCC unroll 4
        for (int b = 0; b < blocks; ++b)
          sum[p][b] = _mm256_add_ps(sum[p][b], _mm256_permutevar8x32_ps(entries, word[b]));
      }
#pragma GCC unroll 4
      for (int b = 0; b < blocks; ++b) word[b] = _mm256_srli_epi32(word[b], kNarrow.bits / 2);
    }
  }
};

template <int blocks, int points>
GOSSAMER_AVX2 void tile(const Weights& weights, const uint32_t* words, const float* const* at, float* sums) {
  const int64_t tables = weights.tables(), pitch = weights.pitch(), whole = tables / kNarrow.groups * kNarrow.groups;
  Registers<blocks, points> in;
  for (auto& row : in.sum)
    for (auto& one : row) one = _mm256_setzero_ps();
  for (int64_t tap = 0; tap < weights.taps; ++tap, at += points) {
    const float* from[points];
    for (int p = 0; p < points; ++p) from[p] = at[p];
    const auto load = [&]() GOSSAMER_AVX2 {
      for (int b = 0; b < blocks; ++b)
        in.word[b] = _mm256_load_si256(reinterpret_cast<const __m256i*>(words + b * pitch));
      words += kNarrow.lanes;
    };
    for (int64_t table = 0; table < whole; table += kNarrow.groups) {
      load();
#pragma GCC unroll 5
      for (int group = 0; group < kNarrow.groups; ++group) in.add(from, table + group);
    }
    if (whole == tables) continue;
    load();
    for (int64_t table = whole; table < tables; ++table) in.add(from, table);
  }
  for (int p = 0; p < points; ++p)
    for (int b = 0; b < blocks; ++b) _mm256_store_ps(sums + (p * blocks + b) * kNarrow.lanes, in.sum[p][b]);
}

}  // namespace

Kernels avx2() {
  return {kNarrow, fill, {{tile<1, 1>, tile<1, 2>}, {tile<2, 1>, tile<2, 2>}, {tile<4, 1>, tile<4, 2>}}};
}

}  // namespace gossamer::ternary
#endif
