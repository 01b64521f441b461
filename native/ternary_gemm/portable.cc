// Plain loops over the wide layout: a look-up and an addition per three weights are few also without vectors.
#include "cpu.h"
#include "ternary_gemm/kernels.h"

namespace gossamer::ternary {
namespace {

void fill(const Weights& weights, const float* x, int64_t step, int64_t count, int64_t apart, float* tables,
          int64_t size) {
  for (int64_t n = 0; n < count; ++n)
    for (int e = 0; e < kWide.entries; ++e) {
      float sum = 0;
      for (int j = 0; j < kInputs; ++j) sum += weights.parts[j][e] * x[n * apart + j * step];
      tables[n * size + e] = sum;
    }
}

template <int blocks, int points>
void tile(const Weights& weights, const uint32_t* words, const float* const* at, float* sums) {
  constexpr int lanes = kWide.lanes;
  const int64_t tables = weights.tables(), pitch = weights.pitch();
  for (int i = 0; i < points * blocks * lanes; ++i) sums[i] = 0;
  for (int64_t tap = 0; tap < weights.taps; ++tap)
    for (int64_t first = 0; first < tables; first += kWide.groups, words += lanes) {
      const int64_t last = first + kWide.groups < tables ? first + kWide.groups : tables;
      for (int p = 0; p < points; ++p)
        for (int b = 0; b < blocks; ++b)
          for (int lane = 0; lane < lanes; ++lane) {
            uint32_t word = words[b * pitch + lane];
            float sum = 0;
            for (int64_t table = first; table < last; ++table, word >>= kWide.bits)
              sum += at[tap * points + p][table * kWide.entries + (word & 31)];
            sums[(p * blocks + b) * lanes + lane] += sum;
          }
    }
}

}  // namespace

Kernels portable() {
  return {kWide, fill, {{tile<1, 1>, tile<1, 2>}, {tile<2, 1>, tile<2, 2>}, {tile<4, 1>, tile<4, 2>}}};
}

Kernels kernels() {
#ifdef GOSSAMER_X86
  if (isa() == Isa::avx512) return avx512();
  if (isa() == Isa::avx2) return avx2();
#endif
#ifdef GOSSAMER_NEON
  if (isa() == Isa::neon) return neon();
#endif
  return portable();
}

}  // namespace gossamer::ternary
