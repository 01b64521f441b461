// Four outputs in a register. Two look-ups of sixteen count the bits of every byte; byte counts are added for up to 31
// steps, at most 248, before they become sums of 64 bits.
#include "binary_conv/kernels.h"
#include "cpu.h"

#ifdef GOSSAMER_X86
#include <immintrin.h>

namespace gossamer::binary {
namespace {

constexpr int64_t kSteps = 31;

template <int pixels>
GOSSAMER_TARGET("avx2") void count(const uint64_t* patches, const uint64_t* filters, int64_t words, int32_t* differ) {
  const __m256i table = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
  const __m256i low = _mm256_set1_epi8(15), zero = _mm256_setzero_si256();
  for (int quarter = 0; quarter < kOutputs / 4; quarter += 2) {
    __m256i sum[pixels][2];
    for (auto& one : sum) one[0] = one[1] = zero;
    for (int64_t from = 0; from < words; from += kSteps) {
      const int64_t end = from + kSteps < words ? from + kSteps : words;
      __m256i bytes[pixels][2];
      for (auto& one : bytes) one[0] = one[1] = zero;
      for (int64_t k = from; k < end; ++k)
        for (int half = 0; half < 2; ++half) {
          const uint64_t* at = filters + k * kOutputs + 4 * (quarter + half);
          const __m256i filter = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
          for (int p = 0; p < pixels; ++p) {
            const __m256i word = _mm256_set1_epi64x(static_cast<long long>(patches[p * words + k]));
            const __m256i differs = _mm256_xor_si256(word, filter);
            const __m256i one = _mm256_shuffle_epi8(table, _mm256_and_si256(differs, low));
            const __m256i two = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(differs, 4), low));
            bytes[p][half] = _mm256_add_epi8(bytes[p][half], _mm256_add_epi8(one, two));
          }
        }
      for (int p = 0; p < pixels; ++p)
        for (int half = 0; half < 2; ++half)
          sum[p][half] = _mm256_add_epi64(sum[p][half], _mm256_sad_epu8(bytes[p][half], zero));
    }
    for (int p = 0; p < pixels; ++p)
      for (int half = 0; half < 2; ++half) {
        alignas(32) uint64_t four[4];
        _mm256_store_si256(reinterpret_cast<__m256i*>(four), sum[p][half]);
        for (int o = 0; o < 4; ++o) differ[p * kOutputs + 4 * (quarter + half) + o] = static_cast<int32_t>(four[o]);
      }
  }
}

}  // namespace

void tile_avx2(const uint64_t* patches, const uint64_t* filters, int64_t words, int32_t* differ) {
  count<kPixels>(patches, filters, words, differ);
}

void single_avx2(const uint64_t* patch, const uint64_t* filters, int64_t words, int32_t* differ) {
  count<1>(patch, filters, words, differ);
}

}  // namespace gossamer::binary
#endif
