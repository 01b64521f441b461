// Thirty-two rANS states of 32 bits that share one sequence of 16-bit words: alphabets of up to 256 symbols
// at a precision of at most 14 bits, made for vector units.
//
// Decode, symbol i in lane i % 32, L = 2^16: as in wide.h, but a row of 32 symbols is decoded first, then the lanes
// below L take their words in lane order. Up to 12 bits, one packed word per slot holds all that a step needs:
//     symbol | f << 8 | (slot - cum) << 20
// Above, a byte per slot names the symbol and a word per symbol holds f | cum << 16, so both stay in the first cache.
// Stored: 32 states of 4 bytes, then the words in reading order.
#pragma once

#include "rans/model.h"

namespace gossamer::rans {

constexpr int kFastLanes = 32, kFastPrecision = 14, kPackedPrecision = 12;
constexpr uint32_t kFastLow = 1u << 16;

inline bool fits_fast(const Model& model) { return model.precision <= kFastPrecision && model.size() >= 2; }

struct FastTable {
  int precision;
  std::vector<uint32_t> packed;   // [2^precision], up to 12 bits
  std::vector<uint8_t> symbol;    // [2^precision + 3], above: vector loads read four bytes at a time
  std::vector<uint32_t> interval;  // [256]: f | cum << 16
  bool is_packed() const { return precision <= kPackedPrecision; }
};

inline FastTable fast_table(const Model& model) {
  FastTable table{model.precision, {}, {}, {}};
  const size_t slots = size_t{1} << model.precision;
  if (table.is_packed()) {
    table.packed.resize(slots);
  } else {
    table.symbol.resize(slots + 3);
    table.interval.resize(256);
  }
  for (size_t k = 0; k < model.size(); ++k) {
    const uint32_t symbol = model.symbol[k], cum = model.cum[k];
    for (uint32_t slot = cum; slot < model.cum[k + 1]; ++slot) {
      if (table.is_packed()) {
        table.packed[slot] = symbol | model.freq(k) << 8 | (slot - cum) << 20;
      } else {
        table.symbol[slot] = static_cast<uint8_t>(symbol);
      }
    }
    if (!table.is_packed()) table.interval[symbol] = model.freq(k) | cum << 16;
  }
  return table;
}

// The table as plain pointers: a store of a symbol could alias a vector's own, and would make the loop reload them.
struct FastView {
  explicit FastView(const FastTable& table)
      : packed(table.packed.data()),
        symbol(table.symbol.data()),
        interval(table.interval.data()),
        precision(table.precision),
        mask((1u << table.precision) - 1) {}
  const uint32_t* packed;
  const uint8_t* symbol;
  const uint32_t* interval;
  int precision;
  uint32_t mask;
};

struct FastStep {
  uint32_t x;  // the state before it takes a word
  uint8_t symbol;
};

template <bool is_packed>
inline FastStep fast_step(const FastView& table, uint32_t x) {
  const uint32_t slot = x & table.mask, high = x >> table.precision;
  if constexpr (is_packed) {
    const uint32_t entry = table.packed[slot];
    return {(entry >> 8 & 4095) * high + (entry >> 20), static_cast<uint8_t>(entry)};
  } else {
    const uint8_t symbol = table.symbol[slot];
    const uint32_t interval = table.interval[symbol];
    return {(interval & 0xffff) * high + slot - (interval >> 16), symbol};
  }
}

struct FastState {
  const FastTable* table;
  uint32_t x[kFastLanes];
  const uint8_t *at, *end;
};

// Decode whole rows while a vector load of every row's words stays inside the payload; returns the rows done.
// Variants agree bit for bit and the caller finishes with reference_fast.
using FastRows = int64_t (*)(FastState& state, uint8_t* symbols, int64_t rows);
int64_t fast_rows_portable(FastState& state, uint8_t* symbols, int64_t rows);
int64_t fast_rows_avx2(FastState& state, uint8_t* symbols, int64_t rows);
int64_t fast_rows_avx512(FastState& state, uint8_t* symbols, int64_t rows);

}  // namespace gossamer::rans
