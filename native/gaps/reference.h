// Gaps: the positions of a sparse array's entries as symbols of `width` bits, straight from the definition.
//
//     symbol g < escape          skip g zeros, then an entry
//     symbol escape = 2^width - 1    skip 2^width - 1 zeros, no entry
#pragma once

#include <cstdint>
#include <vector>

namespace gossamer::gaps {

inline std::vector<uint16_t> reference_encode(const int64_t* positions, int64_t entries, int width) {
  const int64_t escape = (int64_t{1} << width) - 1;
  std::vector<uint16_t> symbols;
  int64_t at = 0;
  for (int64_t j = 0; j < entries; ++j) {
    for (; positions[j] - at >= escape; at += escape) symbols.push_back(static_cast<uint16_t>(escape));
    symbols.push_back(static_cast<uint16_t>(positions[j] - at));
    at = positions[j] + 1;
  }
  return symbols;
}

inline std::vector<int64_t> reference_decode(const uint16_t* symbols, int64_t count, int width) {
  const int64_t escape = (int64_t{1} << width) - 1;
  std::vector<int64_t> positions;
  int64_t at = 0;
  for (int64_t i = 0; i < count; ++i) {
    at += symbols[i];
    if (symbols[i] != escape) positions.push_back(at++);
  }
  return positions;
}

}  // namespace gossamer::gaps
