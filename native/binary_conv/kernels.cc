#include "binary_conv/kernels.h"

#include <cmath>

#include "cpu.h"

namespace gossamer::binary {
namespace {

inline int32_t bits_of(uint64_t word) {
#if defined(__GNUC__) || defined(__clang__)
  return __builtin_popcountll(word);
#else
  int32_t count = 0;
  for (; word; word &= word - 1) ++count;
  return count;
#endif
}

template <int count>
void tile(const uint64_t* const* pixels, const int64_t* steps, int64_t words, const uint64_t* filters, int32_t all,
          int32_t* v) {
  for (int p = 0; p < count; ++p) {
    int32_t differ[kOutputs] = {};
    for (int64_t k = 0; k < words; ++k)
      for (int o = 0; o < kOutputs; ++o) differ[o] += bits_of(pixels[p][steps[k]] ^ filters[k * kOutputs + o]);
    for (int o = 0; o < kOutputs; ++o) v[p * kOutputs + o] = all - 2 * differ[o];
  }
}

void finish(const int32_t* v, int64_t count, const Floats& how, float* y) {
  for (int64_t o = 0; o < how.outputs; ++o)
    for (int64_t p = 0; p < count; ++p)
      y[o * how.step_o + p * how.step_p] =
          std::fma(how.scale[o], static_cast<float>(v[p * kOutputs + o]), how.offset[o]);
}

void compare(const int32_t* v, int64_t count, const int32_t* thresholds, uint8_t* bits, int64_t step) {
  for (int64_t p = 0; p < count; ++p) {
    uint32_t mask = 0;
    for (int o = 0; o < kOutputs; ++o) mask |= static_cast<uint32_t>(v[p * kOutputs + o] < thresholds[o]) << o;
    bits[p * step] = static_cast<uint8_t>(mask);
    bits[p * step + 1] = static_cast<uint8_t>(mask >> 8);
  }
}

void pack(const float* x, int64_t channels, int64_t pixels, uint64_t* words) {
  const int64_t step = words_of(channels);
  for (int64_t i = 0; i < pixels * step; ++i) words[i] = 0;
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t p = 0; p < pixels; ++p)
      words[p * step + c / 64] |= static_cast<uint64_t>(!(x[c * pixels + p] >= 0)) << c % 64;
}

void pack_rows(const float* x, int64_t rows, int64_t channels, uint64_t* words) {
  const int64_t step = words_of(channels);
  for (int64_t i = 0; i < rows * step; ++i) words[i] = 0;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < channels; ++c)
      words[r * step + c / 64] |= static_cast<uint64_t>(!(x[r * channels + c] >= 0)) << c % 64;
}

}  // namespace

bool has_popcount512() {
#ifdef GOSSAMER_X86
  static const bool found = __builtin_cpu_supports("avx512vpopcntdq");
  return found && isa() == Isa::avx512;
#else
  return false;
#endif
}

Kernels kernels() {
#ifdef GOSSAMER_X86
  if (has_popcount512()) return avx512_kernels();
  if (isa() >= Isa::avx2) return avx2_kernels();
#endif
#ifdef GOSSAMER_NEON
  if (isa() == Isa::neon) return neon_kernels();
#endif
  return {{tile<1>, tile<2>, tile<3>, tile<4>}, finish, compare, pack, pack_rows};
}

}  // namespace gossamer::binary
