// Eight outputs in a register: one VPOPCNTQ counts 512 products.
#include "binary_conv/kernels.h"
#include "cpu.h"

#ifdef GOSSAMER_X86
#include <immintrin.h>

#include <algorithm>

#define GOSSAMER_POPCOUNT GOSSAMER_TARGET("avx512f,avx512bw,avx512vl,avx512dq,avx512vpopcntdq")

namespace gossamer::binary {
namespace {

template <int count>
GOSSAMER_POPCOUNT void tile(const uint64_t* const* pixels, const int64_t* steps, int64_t words, const uint64_t* filters,
                            int32_t all, int32_t* v) {
  __m512i sum[count][2];
  const uint64_t* from[count];
  for (int p = 0; p < count; ++p) {
    sum[p][0] = sum[p][1] = _mm512_setzero_si512();
    from[p] = pixels[p];
  }
  for (int64_t k = 0; k < words; ++k) {
    const __m512i low = _mm512_loadu_si512(filters + k * kOutputs), high = _mm512_loadu_si512(filters + k * kOutputs + 8);
    const int64_t step = steps[k];
    for (int p = 0; p < count; ++p) {
      const __m512i word = _mm512_set1_epi64(static_cast<long long>(from[p][step]));
      sum[p][0] = _mm512_add_epi64(sum[p][0], _mm512_popcnt_epi64(_mm512_xor_si512(word, low)));
      sum[p][1] = _mm512_add_epi64(sum[p][1], _mm512_popcnt_epi64(_mm512_xor_si512(word, high)));
    }
  }
  for (int p = 0; p < count; ++p)
    for (int half = 0; half < 2; ++half) {
      const __m256i differ = _mm512_maskz_cvtepi64_epi32(255, sum[p][half]);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(v + p * kOutputs + 8 * half),
                          _mm256_sub_epi32(_mm256_set1_epi32(all), _mm256_add_epi32(differ, differ)));
    }
}

// Four pixels: a transpose of 4 x 4 in each lane gives four outputs of four pixels, which lie together in y.
GOSSAMER_POPCOUNT
void finish(const int32_t* v, int64_t count, const Floats& how, float* y) {
  const auto all = static_cast<__mmask16>((1u << how.outputs) - 1);
  const __m512 scale = _mm512_maskz_loadu_ps(all, how.scale), offset = _mm512_maskz_loadu_ps(all, how.offset);
  alignas(64) float one[kOutputs];
  for (int64_t p = 0; p < count;) {
    if (how.step_o == 1) {
      const __m512 value = _mm512_cvtepi32_ps(_mm512_loadu_si512(v + p * kOutputs));
      _mm512_mask_storeu_ps(y + p * how.step_p, all, _mm512_fmadd_ps(scale, value, offset));
      ++p;
      continue;
    }
    if (how.step_p != 1 || count - p < 4 || how.outputs < kOutputs) {
      _mm512_store_ps(one, _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(_mm512_loadu_si512(v + p * kOutputs)), offset));
      for (int64_t o = 0; o < how.outputs; ++o) y[o * how.step_o + p * how.step_p] = one[o];
      ++p;
      continue;
    }
    __m512 row[4];
    for (int i = 0; i < 4; ++i)
      row[i] = _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(_mm512_loadu_si512(v + (p + i) * kOutputs)), offset);
    const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(row[0], row[1]));
    const __m512d b = _mm512_castps_pd(_mm512_unpackhi_ps(row[0], row[1]));
    const __m512d c = _mm512_castps_pd(_mm512_unpacklo_ps(row[2], row[3]));
    const __m512d d = _mm512_castps_pd(_mm512_unpackhi_ps(row[2], row[3]));
    const __m512 four[4] = {
        _mm512_castpd_ps(_mm512_unpacklo_pd(a, c)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, c)),
        _mm512_castpd_ps(_mm512_unpacklo_pd(b, d)), _mm512_castpd_ps(_mm512_unpackhi_pd(b, d))};
    for (int i = 0; i < 4; ++i) {
      float* to = y + i * how.step_o + p;
      _mm_storeu_ps(to, _mm512_castps512_ps128(four[i]));
      _mm_storeu_ps(to + 4 * how.step_o, _mm512_maskz_extractf32x4_ps(15, four[i], 1));
      _mm_storeu_ps(to + 8 * how.step_o, _mm512_maskz_extractf32x4_ps(15, four[i], 2));
      _mm_storeu_ps(to + 12 * how.step_o, _mm512_maskz_extractf32x4_ps(15, four[i], 3));
    }
    p += 4;
  }
}

GOSSAMER_POPCOUNT
void compare(const int32_t* v, int64_t count, const int32_t* thresholds, uint8_t* bits, int64_t step) {
  const __m512i least = _mm512_loadu_si512(thresholds);
  for (int64_t p = 0; p < count; ++p) {
    const __mmask16 mask = _mm512_cmplt_epi32_mask(_mm512_loadu_si512(v + p * kOutputs), least);
    bits[p * step] = static_cast<uint8_t>(mask);
    bits[p * step + 1] = static_cast<uint8_t>(mask >> 8);
  }
}

// 64 pixels at a time. A comparison gives sixteen bits of one channel; those of 64 channels and eight pixels are a register
// of bytes, of which VPMOVB2M collects one bit each: the word of one pixel.
GOSSAMER_POPCOUNT
void pack(const float* x, int64_t channels, int64_t pixels, uint64_t* words) {
  const int64_t step = words_of(channels);
  alignas(64) uint8_t masks[8][64];
  for (int64_t from = 0; from < pixels; from += 64) {
    const int64_t count = std::min<int64_t>(64, pixels - from);
    for (int64_t word = 0; word < step; ++word) {
      const int64_t inner = std::min<int64_t>(64, channels - 64 * word);
      const float* at = x + 64 * word * pixels + from;
      for (int64_t c = 0; c < inner; ++c, at += pixels)
        for (int64_t p = 0; p < count; p += 16) {
          const auto live = static_cast<__mmask16>((1u << std::min<int64_t>(16, count - p)) - 1);
          const __m512 value = _mm512_maskz_loadu_ps(live, at + p);
          const unsigned mask = _cvtmask16_u32(_mm512_cmp_ps_mask(value, _mm512_setzero_ps(), _CMP_NGE_UQ));
          masks[p / 8][c] = static_cast<uint8_t>(mask);
          masks[p / 8 + 1][c] = static_cast<uint8_t>(mask >> 8);
        }
      for (int64_t eighth = 0; 8 * eighth < count; ++eighth) {
        std::fill(masks[eighth] + inner, masks[eighth] + 64, uint8_t{0});
        __m512i bytes = _mm512_load_si512(masks[eighth]);
        uint64_t eight[8];
        for (int p = 7; p >= 0; --p) {
          eight[p] = _cvtmask64_u64(_mm512_movepi8_mask(bytes));
          bytes = _mm512_add_epi8(bytes, bytes);
        }
        const int64_t left = std::min<int64_t>(8, count - 8 * eighth);
        for (int64_t p = 0; p < left; ++p) words[(from + 8 * eighth + p) * step + word] = eight[p];
      }
    }
  }
}

GOSSAMER_POPCOUNT
void pack_rows(const float* x, int64_t rows, int64_t channels, uint64_t* words) {
  const int64_t step = words_of(channels);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t word = 0; word < step; ++word) {
      uint64_t bits = 0;
      for (int64_t c = 64 * word; c < std::min(channels, 64 * (word + 1)); c += 16) {
        const auto live = static_cast<__mmask16>((1u << std::min<int64_t>(16, channels - c)) - 1);
        const __m512 value = _mm512_maskz_loadu_ps(live, x + r * channels + c);
        const uint64_t mask = _cvtmask16_u32(_mm512_cmp_ps_mask(value, _mm512_setzero_ps(), _CMP_NGE_UQ));
        bits |= mask << (c % 64);
      }
      words[r * step + word] = bits;
    }
}

}  // namespace

Kernels avx512_kernels() { return {{tile<1>, tile<2>, tile<3>, tile<4>}, finish, compare, pack, pack_rows}; }

}  // namespace gossamer::binary
#endif
