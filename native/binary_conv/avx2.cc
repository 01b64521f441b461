// Four outputs in a register. Two look-ups of sixteen count the bits of every byte; byte counts are added for up to 31
// steps, at most 248, before they become sums of 64 bits.
#include "binary_conv/kernels.h"
#include "cpu.h"

#ifdef GOSSAMER_X86
#include <immintrin.h>

#include <algorithm>

#define GOSSAMER_AVX2 GOSSAMER_TARGET("avx2,fma,bmi2")

namespace gossamer::binary {
namespace {

constexpr int64_t kSteps = 31;

template <int count>
GOSSAMER_AVX2 void tile(const uint64_t* const* pixels, const int64_t* steps, int64_t words, const uint64_t* filters,
                        int32_t all, int32_t* v) {
  const __m256i table = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
  const __m256i low = _mm256_set1_epi8(15), zero = _mm256_setzero_si256();
  const __m256i evens = _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6);
  for (int quarter = 0; quarter < kOutputs / 4; quarter += 2) {
    __m256i sum[count][2];
    for (auto& one : sum) one[0] = one[1] = zero;
    for (int64_t from = 0; from < words; from += kSteps) {
      const int64_t end = std::min(from + kSteps, words);
      __m256i bytes[count][2];
      for (auto& one : bytes) one[0] = one[1] = zero;
      for (int64_t k = from; k < end; ++k) {
        const auto* at = reinterpret_cast<const __m256i*>(filters + k * kOutputs + 4 * quarter);
        const __m256i filter[2] = {_mm256_loadu_si256(at), _mm256_loadu_si256(at + 1)};
        for (int p = 0; p < count; ++p) {
          const __m256i word = _mm256_set1_epi64x(static_cast<long long>(pixels[p][steps[k]]));
          for (int half = 0; half < 2; ++half) {
            const __m256i differs = _mm256_xor_si256(word, filter[half]);
            const __m256i one = _mm256_shuffle_epi8(table, _mm256_and_si256(differs, low));
            const __m256i two = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(differs, 4), low));
            bytes[p][half] = _mm256_add_epi8(bytes[p][half], _mm256_add_epi8(one, two));
          }
        }
      }
      for (int p = 0; p < count; ++p)
        for (int half = 0; half < 2; ++half)
          sum[p][half] = _mm256_add_epi64(sum[p][half], _mm256_sad_epu8(bytes[p][half], zero));
    }
    for (int p = 0; p < count; ++p)
      for (int half = 0; half < 2; ++half) {
        const __m128i differ = _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(sum[p][half], evens));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(v + p * kOutputs + 4 * (quarter + half)),
                         _mm_sub_epi32(_mm_set1_epi32(all), _mm_slli_epi32(differ, 1)));
      }
  }
}

GOSSAMER_AVX2
void finish(const int32_t* v, int64_t count, const Floats& how, float* y) {
  alignas(32) float one[kOutputs], scale[kOutputs] = {}, offset[kOutputs] = {};
  std::copy_n(how.scale, how.outputs, scale);
  std::copy_n(how.offset, how.outputs, offset);
  for (int64_t p = 0; p < count; ++p) {
    for (int half = 0; half < kOutputs; half += 8) {
      const __m256 value = _mm256_cvtepi32_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(v + p * kOutputs + half)));
      _mm256_store_ps(one + half, _mm256_fmadd_ps(_mm256_load_ps(scale + half), value, _mm256_load_ps(offset + half)));
    }
    for (int64_t o = 0; o < how.outputs; ++o) y[o * how.step_o + p * how.step_p] = one[o];
  }
}

GOSSAMER_AVX2
void compare(const int32_t* v, int64_t count, const int32_t* thresholds, uint8_t* bits, int64_t step) {
  const auto* at = reinterpret_cast<const __m256i*>(thresholds);
  const __m256i least[2] = {_mm256_loadu_si256(at), _mm256_loadu_si256(at + 1)};
  for (int64_t p = 0; p < count; ++p)
    for (int half = 0; half < 2; ++half) {
      const __m256i value = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(v + p * kOutputs + 8 * half));
      bits[p * step + half] =
          static_cast<uint8_t>(_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(least[half], value))));
    }
}

// Eight pixels at a time: a comparison gives eight bits of one channel; VPMOVMSKB collects one bit of 32 channels each.
GOSSAMER_AVX2
void pack(const float* x, int64_t channels, int64_t pixels, uint64_t* words) {
  const int64_t step = words_of(channels);
  alignas(32) uint8_t masks[64];
  alignas(32) float few[8] = {};
  for (int64_t from = 0; from < pixels; from += 8) {
    const int64_t count = std::min<int64_t>(8, pixels - from);
    for (int64_t word = 0; word < step; ++word) {
      const int64_t inner = std::min<int64_t>(64, channels - 64 * word);
      const float* at = x + 64 * word * pixels + from;
      for (int64_t c = 0; c < inner; ++c, at += pixels) {
        if (count < 8) std::copy_n(at, count, few);
        const __m256 value = count < 8 ? _mm256_load_ps(few) : _mm256_loadu_ps(at);
        masks[c] = static_cast<uint8_t>(_mm256_movemask_ps(_mm256_cmp_ps(value, _mm256_setzero_ps(), _CMP_NGE_UQ)));
      }
      std::fill(masks + inner, masks + 64, uint8_t{0});
      __m256i low = _mm256_load_si256(reinterpret_cast<const __m256i*>(masks));
      __m256i high = _mm256_load_si256(reinterpret_cast<const __m256i*>(masks + 32));
      uint64_t eight[8];
      for (int p = 7; p >= 0; --p) {
        const auto two = static_cast<uint32_t>(_mm256_movemask_epi8(low));
        eight[p] = static_cast<uint64_t>(static_cast<uint32_t>(_mm256_movemask_epi8(high))) << 32 | two;
        low = _mm256_add_epi8(low, low);
        high = _mm256_add_epi8(high, high);
      }
      for (int64_t p = 0; p < count; ++p) words[(from + p) * step + word] = eight[p];
    }
  }
}

GOSSAMER_AVX2
void pack_rows(const float* x, int64_t rows, int64_t channels, uint64_t* words) {
  const int64_t step = words_of(channels);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t word = 0; word < step; ++word) {
      const float* at = x + r * channels + 64 * word;
      const int64_t inner = std::min<int64_t>(64, channels - 64 * word);
      uint64_t bits = 0;
      int64_t c = 0;
      for (; c + 8 <= inner; c += 8) {
        const __m256 less = _mm256_cmp_ps(_mm256_loadu_ps(at + c), _mm256_setzero_ps(), _CMP_NGE_UQ);
        bits |= static_cast<uint64_t>(_mm256_movemask_ps(less)) << c;
      }
      for (; c < inner; ++c) bits |= static_cast<uint64_t>(!(at[c] >= 0)) << c;
      words[r * step + word] = bits;
    }
}

}  // namespace

Kernels avx2_kernels() { return {{tile<1>, tile<2>, tile<3>, tile<4>}, finish, compare, pack, pack_rows}; }

}  // namespace gossamer::binary
#endif
