// Four registers of eight lanes. After a step, the lanes below L get their words by one permutation per register,
// looked up by the mask of those lanes.
#include "cpu.h"
#include "rans/fast.h"

#ifdef GOSSAMER_X86
#include <immintrin.h>

namespace gossamer::rans {
namespace {

// order[mask]: for lane l with its bit set, how many set bits lie below it.
struct Orders {
  alignas(32) uint32_t order[256][8];
  Orders() {
    for (unsigned mask = 0; mask < 256; ++mask)
      for (unsigned lane = 0, next = 0; lane < 8; ++lane) {
        order[mask][lane] = next;
        next += mask >> lane & 1;
      }
  }
};

}  // namespace

GOSSAMER_TARGET("avx2,bmi2,popcnt")
int64_t fast_rows_avx2(FastState& state, uint8_t* symbols, int64_t rows) {
  static const Orders orders;
  const int* table = reinterpret_cast<const int*>(state.table);
  const __m128i n = _mm_cvtsi32_si128(state.precision);
  const __m256i mask = _mm256_set1_epi32((1 << state.precision) - 1);
  const __m256i low12 = _mm256_set1_epi32(4095), byte = _mm256_set1_epi32(255);
  const uint8_t* at = state.at;
  __m256i x[4];
  for (int r = 0; r < 4; ++r) x[r] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(state.x + 8 * r));
  int64_t row = 0;
  // the last register's load of 16 bytes may start 48 bytes in
  for (; row < rows && state.end - at >= 2 * kFastLanes; ++row, symbols += kFastLanes) {
    __m256i entry[4];
    for (int r = 0; r < 4; ++r) entry[r] = _mm256_i32gather_epi32(table, _mm256_and_si256(x[r], mask), 4);
    for (int r = 0; r < 4; ++r) {
      const __m256i freq = _mm256_and_si256(_mm256_srli_epi32(entry[r], 8), low12);
      x[r] = _mm256_add_epi32(_mm256_mullo_epi32(freq, _mm256_srl_epi32(x[r], n)), _mm256_srli_epi32(entry[r], 20));
      // x < 2^16 exactly when its high half is zero
      const __m256i below = _mm256_cmpeq_epi32(_mm256_srli_epi32(x[r], 16), _mm256_setzero_si256());
      const unsigned lanes = static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(below)));
      const __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
      const __m256i order = _mm256_load_si256(reinterpret_cast<const __m256i*>(orders.order[lanes]));
      const __m256i next = _mm256_or_si256(_mm256_slli_epi32(x[r], 16), _mm256_permutevar8x32_epi32(words, order));
      x[r] = _mm256_blendv_epi8(x[r], next, below);
      at += 2 * _mm_popcnt_u32(lanes);
    }
    const __m256i one = _mm256_packus_epi32(_mm256_and_si256(entry[0], byte), _mm256_and_si256(entry[1], byte));
    const __m256i two = _mm256_packus_epi32(_mm256_and_si256(entry[2], byte), _mm256_and_si256(entry[3], byte));
    // packing interleaves the 128-bit halves; groups of four bytes are put back in order
    const __m256i out = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(one, two),
                                                    _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(symbols), out);
  }
  for (int r = 0; r < 4; ++r) _mm256_storeu_si256(reinterpret_cast<__m256i*>(state.x + 8 * r), x[r]);
  state.at = at;
  return row;
}

}  // namespace gossamer::rans
#endif
