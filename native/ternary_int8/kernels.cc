// Plain loops, and the choice of the variant.
#include "ternary_int8/kernels.h"

#include "cpu.h"

namespace gossamer::ternary_int8 {
namespace {

template <int points>
void tile(const uint8_t* block, int64_t steps, const uint8_t* const* x, int32_t* sums) {
  for (int i = 0; i < points * kOutputs; ++i) sums[i] = 0;
  for (int64_t step = 0; step < steps; ++step, block += kStep)
    for (int p = 0; p < points; ++p)
      for (int k = 0; k < kInputs; ++k) {
        const int32_t value = x[p][step * kInputs + k];
        for (int o = 0; o < kOutputs; ++o) sums[p * kOutputs + o] += value * (block[4 * o + k % 4] >> 2 * (k / 4) & 3);
      }
}

int32_t total(const uint8_t* row, int64_t count) {
  int32_t sum = 0;
  for (int64_t k = 0; k < count; ++k) sum += row[k];
  return sum;
}

bool has_vnni() {
#ifdef GOSSAMER_X86
  static const bool found = __builtin_cpu_supports("avx512vnni");
  return found && isa() == Isa::avx512;
#else
  return false;
#endif
}

}  // namespace

Kernels kernels() {
#ifdef GOSSAMER_X86
  if (has_vnni()) return vnni();
  if (isa() >= Isa::avx2) return avx2();
#endif
  return {{tile<1>, tile<2>, tile<3>, tile<4>, tile<5>, tile<6>, tile<7>, tile<8>}, total};
}

}  // namespace gossamer::ternary_int8
