// Canonical Huffman decoding one bit at a time, straight from the definition.
#pragma once

#include "huffman/lengths.h"

namespace gossamer::huffman {

template <class Symbol>
int64_t reference_decode(const range::Table& table, const uint8_t* stream, int64_t size, Symbol* symbols,
                         int64_t count, int width) {
  std::vector<Code> codes;
  canonical(table, codes, width);
  int64_t bit = 0;
  for (int64_t i = 0; i < count; ++i) {
    uint32_t seen = 0, length = 0;
    bool found = false;
    while (!found) {
      if (bit >= 8 * size || length >= kMostBits) return GOSSAMER_TRUNCATED;
      seen |= (stream[bit / 8] >> (bit % 8) & 1u) << length++;
      ++bit;
      for (const auto& entry : table)
        if (codes[entry.symbol].length == length && codes[entry.symbol].bits == seen) {
          symbols[i] = static_cast<Symbol>(entry.symbol);
          found = true;
        }
    }
  }
  return bit;
}

}  // namespace gossamer::huffman
