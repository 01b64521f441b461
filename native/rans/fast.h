// Thirty-two rANS states of 32 bits that share one sequence of 16-bit words: alphabets of up to 256 symbols
// at a precision of at most 12 bits, made for vector units.
//
// Decode, symbol i in lane i % 32, L = 2^16: as in wide.h, but a row of 32 symbols is decoded first, then the lanes
// below L take their words in lane order. One packed word per slot holds all a step needs:
//     entry = symbol | freq << 8 | (slot - cum) << 20
// Stored: 32 states of 4 bytes, then the words in reading order.
#pragma once

#include "rans/model.h"

namespace gossamer::rans {

constexpr int kFastLanes = 32, kFastPrecision = 12;
constexpr uint32_t kFastLow = 1u << 16;

using Packed = std::vector<uint32_t>;

inline bool fits_fast(const Model& model) {
  return model.precision <= kFastPrecision && model.size() >= 2;
}

inline Packed packed(const Model& model) {
  Packed table(size_t{1} << model.precision);
  for (size_t k = 0; k < model.size(); ++k)
    for (uint32_t slot = model.cum[k]; slot < model.cum[k + 1]; ++slot)
      table[slot] = model.symbol[k] | model.freq(k) << 8 | (slot - model.cum[k]) << 20;
  return table;
}

struct FastState {
  const uint32_t* table;
  int precision;
  uint32_t x[kFastLanes];
  const uint8_t *at, *end;
};

// Decode whole rows from `symbols` while a vector load of every row's words stays inside the payload; returns the
// rows done. Variants agree bit for bit and the caller finishes with reference_fast.
using FastRows = int64_t (*)(FastState& state, uint8_t* symbols, int64_t rows);
int64_t fast_rows_portable(FastState& state, uint8_t* symbols, int64_t rows);
int64_t fast_rows_avx2(FastState& state, uint8_t* symbols, int64_t rows);
int64_t fast_rows_avx512(FastState& state, uint8_t* symbols, int64_t rows);

}  // namespace gossamer::rans
