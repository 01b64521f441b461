// Eight rows at a time: two permutations and a blend look up the values.
#include "cpu.h"
#include "sparse_gemv/rows.h"

#ifdef GOSSAMER_X86
#include <immintrin.h>

namespace gossamer::sparse {
namespace {

struct Eight {
  __m256i column;  // after the step
  __m256 value;    // 0 for a long run
  __m256i entry;   // all ones for an entry
};

struct Decoder {
  __m256 low, high;
  GOSSAMER_TARGET("avx2,fma") explicit Decoder(const float* codebook)
      : low(_mm256_load_ps(codebook)), high(_mm256_load_ps(codebook + 8)) {}

  GOSSAMER_TARGET("avx2,fma") Eight step(__m256i column, const uint8_t* bytes) const {
    const __m256i byte = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes)));
    const __m256i run = _mm256_srli_epi32(byte, 4), code = _mm256_and_si256(byte, _mm256_set1_epi32(15));
    const __m256i one = _mm256_set1_epi32(1), next = _mm256_add_epi32(code, one);
    const __m256i is_long = _mm256_cmpeq_epi32(run, _mm256_set1_epi32(kLongRun));
    const __m256i far = _mm256_sub_epi32(_mm256_slli_epi32(next, 4), next);  // 15 (code + 1)
    const __m256i moved = _mm256_blendv_epi8(_mm256_add_epi32(run, one), far, is_long);
    const __m256 upper = _mm256_castsi256_ps(_mm256_slli_epi32(code, 28));  // bit 3 to the sign
    const __m256 value =
        _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, code), _mm256_permutevar8x32_ps(high, code), upper);
    return {_mm256_add_epi32(column, moved), _mm256_andnot_ps(_mm256_castsi256_ps(is_long), value),
            _mm256_xor_si256(is_long, _mm256_set1_epi32(-1))};
  }
};

}  // namespace

GOSSAMER_TARGET("avx2,fma")
void slice_avx2(Slice slice, const float* codebook, const float* x, int64_t, float* sums) {
  const Decoder decoder(codebook);
  __m256i column[2] = {_mm256_set1_epi32(-1), _mm256_set1_epi32(-1)};
  __m256 sum[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
  for (int64_t k = 0; k < slice.steps; ++k) {
    for (int half = 0; half < 2; ++half) {
      const Eight now = decoder.step(column[half], slice.bytes + k * kLanes + 8 * half);
      column[half] = now.column;
      const __m256 read = _mm256_mask_i32gather_ps(_mm256_setzero_ps(), x, now.column, _mm256_castsi256_ps(now.entry), 4);
      sum[half] = _mm256_fmadd_ps(now.value, read, sum[half]);
    }
  }
  _mm256_store_ps(sums, sum[0]);
  _mm256_store_ps(sums + 8, sum[1]);
}

// Eight rows and four samples: a register holds two rows.
GOSSAMER_TARGET("avx2,fma")
void slice_few_avx2(Slice slice, const float* codebook, const float* x, int64_t columns, float* sums) {
  const Decoder decoder(codebook);
  const __m256i zero_line = _mm256_set1_epi32(static_cast<int>(columns));
  const __m256i first = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
  for (int half = 0; half < 2; ++half) {
    __m256i column = _mm256_set1_epi32(-1);
    __m256 sum[4];
    for (auto& one : sum) one = _mm256_setzero_ps();
    alignas(32) int32_t line[8];
    for (int64_t k = 0; k < slice.steps; ++k) {
      const Eight now = decoder.step(column, slice.bytes + k * kLanes + 8 * half);
      column = now.column;
      _mm256_store_si256(reinterpret_cast<__m256i*>(line), _mm256_blendv_epi8(zero_line, column, now.entry));
#pragma GCC unroll 4
      for (int pair = 0; pair < 4; ++pair) {
        const float* low = x + static_cast<int64_t>(line[2 * pair]) * kFew;
        const float* high = x + static_cast<int64_t>(line[2 * pair + 1]) * kFew;
        const __m256 samples = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_load_ps(low)), _mm_load_ps(high), 1);
        const __m256i spread = _mm256_add_epi32(first, _mm256_set1_epi32(2 * pair));
        sum[pair] = _mm256_fmadd_ps(_mm256_permutevar8x32_ps(now.value, spread), samples, sum[pair]);
      }
    }
    for (int pair = 0; pair < 4; ++pair) _mm256_store_ps(sums + (8 * half + 2 * pair) * kFew, sum[pair]);
  }
}

// Eight rows and eight samples in registers: four passes over a slice, which stays in the first cache.
GOSSAMER_TARGET("avx2,fma")
void slice_batch_avx2(Slice slice, const float* codebook, const float* x, int64_t columns, float* sums) {
  const Decoder decoder(codebook);
  const __m256i zero_line = _mm256_set1_epi32(static_cast<int>(columns));
  for (int pass = 0; pass < 4; ++pass) {
    const int half = pass / 2, first = 8 * (pass % 2);
    __m256i column = _mm256_set1_epi32(-1);
    __m256 sum[8];
    for (auto& one : sum) one = _mm256_setzero_ps();
    alignas(32) int32_t line[8];
    alignas(32) float value[8];
    for (int64_t k = 0; k < slice.steps; ++k) {
      const Eight now = decoder.step(column, slice.bytes + k * kLanes + 8 * half);
      column = now.column;
      _mm256_store_si256(reinterpret_cast<__m256i*>(line), _mm256_blendv_epi8(zero_line, column, now.entry));
      _mm256_store_ps(value, now.value);
      for (int lane = 0; lane < 8; ++lane) {
        const float* samples = x + static_cast<int64_t>(line[lane]) * kBatch + first;
        sum[lane] = _mm256_fmadd_ps(_mm256_broadcast_ss(value + lane), _mm256_load_ps(samples), sum[lane]);
      }
    }
    for (int lane = 0; lane < 8; ++lane) _mm256_store_ps(sums + (8 * half + lane) * kBatch + first, sum[lane]);
  }
}

}  // namespace gossamer::sparse
#endif
