// Two registers of sixteen lanes; the lanes below L take their words by one expand.
#include "cpu.h"
#include "rans/fast.h"

#ifdef GOSSAMER_X86
#include <immintrin.h>

namespace gossamer::rans {
namespace {

template <bool packed>
GOSSAMER_TARGET("avx512f,avx512bw,avx512vl,avx512dq,bmi2,popcnt")
int64_t rows_of(FastState& state, uint8_t* symbols, int64_t rows) {
  const FastTable& table = *state.table;
  const uint32_t* words_of = packed ? table.packed.data() : table.interval.data();
  const uint8_t* symbol_of = table.symbol.data();
  const __m128i n = _mm_cvtsi32_si128(table.precision);
  const __m512i mask = _mm512_set1_epi32((1 << table.precision) - 1);
  const __m512i low12 = _mm512_set1_epi32(4095), low16 = _mm512_set1_epi32(65535), byte = _mm512_set1_epi32(255);
  const __m512i low = _mm512_set1_epi32(static_cast<int>(kFastLow));
  const uint8_t* at = state.at;
  __m512i x[2];
  for (int r = 0; r < 2; ++r) x[r] = _mm512_loadu_si512(state.x + 16 * r);
  int64_t row = 0;
  for (; row < rows && state.end - at >= 2 * kFastLanes; ++row, symbols += kFastLanes) {
    for (int r = 0; r < 2; ++r) {
      const __m512i slot = _mm512_and_si512(x[r], mask), high = _mm512_srl_epi32(x[r], n);
      __m512i symbol;
      if constexpr (packed) {
        symbol = _mm512_i32gather_epi32(slot, words_of, 4);
        const __m512i freq = _mm512_and_si512(_mm512_srli_epi32(symbol, 8), low12);
        x[r] = _mm512_add_epi32(_mm512_mullo_epi32(freq, high), _mm512_srli_epi32(symbol, 20));
      } else {
        symbol = _mm512_and_si512(_mm512_i32gather_epi32(slot, symbol_of, 1), byte);
        const __m512i interval = _mm512_i32gather_epi32(symbol, words_of, 4);
        const __m512i step = _mm512_mullo_epi32(_mm512_and_si512(interval, low16), high);
        x[r] = _mm512_add_epi32(step, _mm512_sub_epi32(slot, _mm512_srli_epi32(interval, 16)));
      }
      const __mmask16 below = _mm512_cmplt_epu32_mask(x[r], low);
      const __m512i words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
      const __m512i next = _mm512_or_si512(_mm512_slli_epi32(x[r], 16), _mm512_maskz_expand_epi32(below, words));
      x[r] = _mm512_mask_mov_epi32(x[r], below, next);
      at += 2 * _mm_popcnt_u32(below);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(symbols + 16 * r), _mm512_cvtepi32_epi8(symbol));
    }
  }
  for (int r = 0; r < 2; ++r) _mm512_storeu_si512(state.x + 16 * r, x[r]);
  state.at = at;
  return row;
}

}  // namespace

int64_t fast_rows_avx512(FastState& state, uint8_t* symbols, int64_t rows) {
  return state.table->is_packed() ? rows_of<true>(state, symbols, rows) : rows_of<false>(state, symbols, rows);
}

}  // namespace gossamer::rans
#endif
