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

template <bool packed>
GOSSAMER_TARGET("avx2,bmi2,popcnt")
int64_t rows_of(FastState& state, uint8_t* symbols, int64_t rows) {
  static const Orders orders;
  const FastTable& table = *state.table;
  const int* words_of = reinterpret_cast<const int*>(packed ? table.packed.data() : table.interval.data());
  const int* symbol_of = reinterpret_cast<const int*>(table.symbol.data());
  const __m128i n = _mm_cvtsi32_si128(table.precision);
  const __m256i mask = _mm256_set1_epi32((1 << table.precision) - 1);
  const __m256i low12 = _mm256_set1_epi32(4095), low16 = _mm256_set1_epi32(65535), byte = _mm256_set1_epi32(255);
  const uint8_t* at = state.at;
  __m256i x[4];
  for (int r = 0; r < 4; ++r) x[r] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(state.x + 8 * r));
  int64_t row = 0;
  // the last register's load of 16 bytes may start 48 bytes in
  for (; row < rows && state.end - at >= 2 * kFastLanes; ++row, symbols += kFastLanes) {
    __m256i symbol[4];
    for (int r = 0; r < 4; ++r) {
      const __m256i slot = _mm256_and_si256(x[r], mask), high = _mm256_srl_epi32(x[r], n);
      if constexpr (packed) {
        const __m256i entry = _mm256_i32gather_epi32(words_of, slot, 4);
        const __m256i freq = _mm256_and_si256(_mm256_srli_epi32(entry, 8), low12);
        x[r] = _mm256_add_epi32(_mm256_mullo_epi32(freq, high), _mm256_srli_epi32(entry, 20));
        symbol[r] = _mm256_and_si256(entry, byte);
      } else {
        symbol[r] = _mm256_and_si256(_mm256_i32gather_epi32(symbol_of, slot, 1), byte);
        const __m256i interval = _mm256_i32gather_epi32(words_of, symbol[r], 4);
        const __m256i step = _mm256_mullo_epi32(_mm256_and_si256(interval, low16), high);
        x[r] = _mm256_add_epi32(step, _mm256_sub_epi32(slot, _mm256_srli_epi32(interval, 16)));
      }
    }
    for (int r = 0; r < 4; ++r) {
      // x < 2^16 exactly when its high half is zero
      const __m256i below = _mm256_cmpeq_epi32(_mm256_srli_epi32(x[r], 16), _mm256_setzero_si256());
      const unsigned lanes = static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(below)));
      const __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
      const __m256i order = _mm256_load_si256(reinterpret_cast<const __m256i*>(orders.order[lanes]));
      const __m256i next = _mm256_or_si256(_mm256_slli_epi32(x[r], 16), _mm256_permutevar8x32_epi32(words, order));
      x[r] = _mm256_blendv_epi8(x[r], next, below);
      at += 2 * _mm_popcnt_u32(lanes);
    }
    const __m256i one = _mm256_packus_epi32(symbol[0], symbol[1]), two = _mm256_packus_epi32(symbol[2], symbol[3]);
    // packing interleaves the 128-bit halves; groups of four bytes are put back in order
    const __m256i out = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(one, two),
                                                    _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(symbols), out);
  }
  for (int r = 0; r < 4; ++r) _mm256_storeu_si256(reinterpret_cast<__m256i*>(state.x + 8 * r), x[r]);
  state.at = at;
  return row;
}

}  // namespace

int64_t fast_rows_avx2(FastState& state, uint8_t* symbols, int64_t rows) {
  return state.table->is_packed() ? rows_of<true>(state, symbols, rows) : rows_of<false>(state, symbols, rows);
}

}  // namespace gossamer::rans
#endif
