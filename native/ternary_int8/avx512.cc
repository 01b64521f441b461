// Sixteen outputs in a register: four inputs of each are multiplied and added by one instruction.
#include "cpu.h"
#include "ternary_int8/kernels.h"

#ifdef GOSSAMER_X86
#include <immintrin.h>

#include <cstring>

#define GOSSAMER_VNNI GOSSAMER_TARGET("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2")

namespace gossamer::ternary_int8 {
namespace {

template <int points>
GOSSAMER_VNNI void tile(const uint8_t* block, int64_t steps, const uint8_t* const* x, int32_t* sums) {
  constexpr int chains = points < 2 ? 4 : points < 4 ? 2 : 1;  // a sum waits four cycles for the one before it
  const __m512i mask = _mm512_set1_epi8(3);
  __m512i sum[points][chains];
  for (auto& one : sum)
    for (auto& chain : one) chain = _mm512_setzero_si512();
  for (int64_t step = 0; step < steps; ++step) {
    const __m512i word = _mm512_loadu_si512(block + step * kStep);
#pragma GCC unroll 4
    for (int g = 0; g < 4; ++g) {
      const __m512i u = _mm512_and_si512(_mm512_srli_epi16(word, static_cast<unsigned>(2 * g)), mask);
#pragma GCC unroll 8
      for (int p = 0; p < points; ++p) {
        int32_t four;
        std::memcpy(&four, x[p] + step * kInputs + 4 * g, sizeof four);
        sum[p][g % chains] = _mm512_dpbusd_epi32(sum[p][g % chains], _mm512_set1_epi32(four), u);
      }
    }
  }
  for (int p = 0; p < points; ++p) {
    for (int chain = 1; chain < chains; ++chain) sum[p][0] = _mm512_add_epi32(sum[p][0], sum[p][chain]);
    _mm512_storeu_si512(sums + p * kOutputs, sum[p][0]);
  }
}

}  // namespace

Kernels vnni() { return {{tile<1>, tile<2>, tile<3>, tile<4>, tile<5>, tile<6>, tile<7>, tile<8>}, total_avx2}; }

}  // namespace gossamer::ternary_int8
#endif
