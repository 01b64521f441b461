#include "binary_conv/kernels.h"

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

template <int pixels>
void count(const uint64_t* patches, const uint64_t* filters, int64_t words, int32_t* differ) {
  for (int i = 0; i < pixels * kOutputs; ++i) differ[i] = 0;
  for (int p = 0; p < pixels; ++p)
    for (int64_t k = 0; k < words; ++k)
      for (int o = 0; o < kOutputs; ++o)
        differ[p * kOutputs + o] += bits_of(patches[p * words + k] ^ filters[k * kOutputs + o]);
}

}  // namespace

void tile_portable(const uint64_t* patches, const uint64_t* filters, int64_t words, int32_t* differ) {
  count<kPixels>(patches, filters, words, differ);
}

void single_portable(const uint64_t* patch, const uint64_t* filters, int64_t words, int32_t* differ) {
  count<1>(patch, filters, words, differ);
}

void pack_portable(const float* x, int64_t channels, int64_t pixels, uint64_t* words) {
  const int64_t step = (channels + 63) / 64;
  for (int64_t i = 0; i < pixels * step; ++i) words[i] = 0;
  if (pixels == 1) {
    for (int64_t c = 0; c < channels; ++c) words[c / 64] |= static_cast<uint64_t>(!(x[c] >= 0)) << c % 64;
    return;
  }
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t p = 0; p < pixels; ++p)
      words[p * step + c / 64] |= static_cast<uint64_t>(!(x[c * pixels + p] >= 0)) << c % 64;
}

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
  if (has_popcount512()) return {tile_avx512, single_avx512, pack_avx512};
  if (isa() >= Isa::avx2) return {tile_avx2, single_avx2, pack_portable};
#endif
  return {tile_portable, single_portable, pack_portable};
}

}  // namespace gossamer::binary
