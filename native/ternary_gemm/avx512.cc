// Sixteen outputs in a register: one permutation of two registers looks up what three inputs add to each.
#include "cpu.h"
#include "ternary_gemm/kernels.h"

#ifdef GOSSAMER_X86
#include <immintrin.h>

#define GOSSAMER_AVX512 GOSSAMER_TARGET("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")

namespace gossamer::ternary {
namespace {

GOSSAMER_AVX512
void fill(const Weights& weights, const float* x, int64_t step, int64_t count, int64_t apart, float* tables,
          int64_t size) {
  __m512 part[kInputs][2];
  for (int j = 0; j < kInputs; ++j)
    for (int half = 0; half < 2; ++half) part[j][half] = _mm512_load_ps(weights.parts[j] + 16 * half);
  for (int64_t n = 0; n < count; ++n, x += apart, tables += size) {
    const __m512 x0 = _mm512_set1_ps(x[0]), x1 = _mm512_set1_ps(x[step]), x2 = _mm512_set1_ps(x[2 * step]);
    for (int half = 0; half < 2; ++half) {
      const __m512 two = _mm512_fmadd_ps(part[1][half], x1, _mm512_mul_ps(part[0][half], x0));
      _mm512_store_ps(tables + 16 * half, _mm512_fmadd_ps(part[2][half], x2, two));
    }
  }
}

// The sums and words of a tile; all of it is inlined, so that they stay in registers.
template <int blocks, int points>
struct Registers {
  __m512 sum[points][blocks];
  __m512i word[blocks];

  // adds what the tables number `table` of the points give
  GOSSAMER_AVX512 __attribute__((always_inline)) void add(const float* const* from, int64_t table) {
#pragma GCC unroll 2
    for (int p = 0; p < points; ++p) {
      const __m512 low = _mm512_load_ps(from[p] + table * kWide.entries);
      const __m512 high = _mm512_load_ps(from[p] + table * kWide.entries + 16);
#pragma GCC unroll 4
      for (int b = 0; b < blocks; ++b) sum[p][b] = _mm512_add_ps(sum[p][b], _mm512_permutex2var_ps(low, word[b], high));
    }
#pragma GCC unroll 4
    for (int b = 0; b < blocks; ++b) word[b] = _mm512_srli_epi32(word[b], kWide.bits);
  }
};

template <int blocks, int points>
GOSSAMER_AVX512 void tile(const Weights& weights, const uint32_t* words, const float* const* at, float* sums) {
  const int64_t tables = weights.tables(), pitch = weights.pitch(), whole = tables / kWide.groups * kWide.groups;
  Registers<blocks, points> in;
  for (auto& row : in.sum)
    for (auto& one : row) one = _mm512_setzero_ps();
  for (int64_t tap = 0; tap < weights.taps; ++tap, at += points) {
    const float* from[points];
    for (int p = 0; p < points; ++p) from[p] = at[p];
    const auto load = [&]() GOSSAMER_AVX512 {
      for (int b = 0; b < blocks; ++b) in.word[b] = _mm512_load_si512(words + b * pitch);
      words += kWide.lanes;
    };
    for (int64_t table = 0; table < whole; table += kWide.groups) {
      load();
#pragma GCC unroll 6
      for (int group = 0; group < kWide.groups; ++group) in.add(from, table + group);
    }
    if (whole == tables) continue;
    load();
    for (int64_t table = whole; table < tables; ++table) in.add(from, table);
  }
  for (int p = 0; p < points; ++p)
    for (int b = 0; b < blocks; ++b) _mm512_store_ps(sums + (p * blocks + b) * kWide.lanes, in.sum[p][b]);
}

}  // namespace

Kernels avx512() {
  return {kWide, fill, {{tile<1, 1>, tile<1, 2>}, {tile<2, 1>, tile<2, 2>}, {tile<4, 1>, tile<4, 2>}}};
}

}  // namespace gossamer::ternary
#endif
