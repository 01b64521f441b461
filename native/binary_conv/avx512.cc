// Eight outputs in a register: one VPOPCNTQ counts 512 products.
#include "binary_conv/kernels.h"
#include "cpu.h"

#ifdef GOSSAMER_X86
#include <immintrin.h>

#define GOSSAMER_POPCOUNT GOSSAMER_TARGET("avx512f,avx512bw,avx512vl,avx512dq,avx512vpopcntdq")

namespace gossamer::binary {
namespace {

template <int pixels>
GOSSAMER_POPCOUNT void count(const uint64_t* patches, const uint64_t* filters, int64_t words, int32_t* differ) {
  __m512i sum[pixels][2];
  for (auto& one : sum) one[0] = one[1] = _mm512_setzero_si512();
  for (int64_t k = 0; k < words; ++k) {
    const __m512i low = _mm512_loadu_si512(filters + k * kOutputs), high = _mm512_loadu_si512(filters + k * kOutputs + 8);
    for (int p = 0; p < pixels; ++p) {
      const __m512i word = _mm512_set1_epi64(static_cast<long long>(patches[p * words + k]));
      sum[p][0] = _mm512_add_epi64(sum[p][0], _mm512_popcnt_epi64(_mm512_xor_si512(word, low)));
      sum[p][1] = _mm512_add_epi64(sum[p][1], _mm512_popcnt_epi64(_mm512_xor_si512(word, high)));
    }
  }
  for (int p = 0; p < pixels; ++p)
    for (int half = 0; half < 2; ++half)
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(differ + p * kOutputs + 8 * half),
                          _mm512_maskz_cvtepi64_epi32(255, sum[p][half]));
}

}  // namespace

void tile_avx512(const uint64_t* patches, const uint64_t* filters, int64_t words, int32_t* differ) {
  count<kPixels>(patches, filters, words, differ);
}

void single_avx512(const uint64_t* patch, const uint64_t* filters, int64_t words, int32_t* differ) {
  count<1>(patch, filters, words, differ);
}

// Eight pixels at a time; a comparison gives the bits of one channel, set in eight words at once.
GOSSAMER_POPCOUNT
void pack_avx512(const float* x, int64_t channels, int64_t pixels, uint64_t* words) {
  if (pixels < 8) return pack_portable(x, channels, pixels, words);
  const int64_t step = (channels + 63) / 64;
  alignas(64) uint64_t eight[8];
  for (int64_t base = 0; base < pixels; base += 8) {
    const int64_t from = base + 8 <= pixels ? base : pixels - 8;  // the last group overlaps the one before
    for (int64_t word = 0; word < step; ++word) {
      __m512i bits = _mm512_setzero_si512(), one = _mm512_set1_epi64(1);
      const int64_t last = channels < 64 * (word + 1) ? channels : 64 * (word + 1);
      for (int64_t c = 64 * word; c < last; ++c) {
        const __mmask8 at_least_zero =
            _mm256_cmp_ps_mask(_mm256_loadu_ps(x + c * pixels + from), _mm256_setzero_ps(), _CMP_GE_OQ);
        bits = _mm512_mask_or_epi64(bits, static_cast<__mmask8>(~at_least_zero), bits, one);
        one = _mm512_add_epi64(one, one);
      }
      _mm512_store_si512(eight, bits);
      for (int p = 0; p < 8; ++p) words[(from + p) * step + word] = eight[p];
    }
  }
}

}  // namespace gossamer::binary
#endif
