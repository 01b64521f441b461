// Ternary weights times floats, by tables: what three inputs can add to an output is computed once for all outputs.
//
// Three weights of {minus, 0, plus} are one of 27 combinations. A table holds, for three inputs x0, x1, x2, the sum
// d0 x0 + d1 x1 + d2 x2 of each combination, and each output adds the entry its weights name: one look-up and one
// addition where a dense product takes three multiply-adds. Inputs beyond the last count as 0.
//
// Given:   codes of 2 bits, four to a byte, the first in the lowest bits: 0 is 0, 1 the first value, 2 the second; the
//          last byte of a row is filled with zeros
// In use:  words of 32 bits for `lanes` outputs side by side, a block; a word holds the indices of `groups` tables, the
//          first in its lowest bits
//     wide     16 outputs; 5 bits, d0 + 3 d1 + 9 d2, into 32 entries: 18 weights in a word (1.78 bits each)
//     narrow   8 outputs; 3 bits into the 8 sums of the first value and 3 into those of the second: 15 weights
// Source: Park et al., "LUT-GEMM", ICLR 2024, arXiv:2206.09557 (tables of partial sums); Wei et al., "T-MAC", EuroSys
// 2025, arXiv:2407.00088 (tables in registers); the base of three and the floats are ours.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "ternary_gemm/aligned.h"

namespace gossamer::ternary {

constexpr int kInputs = 3;  // of a table
constexpr int kMaxLanes = 16, kMaxEntries = 32;
constexpr int64_t kMost = int64_t{1} << 27;

struct Layout {
  int lanes, groups, bits, entries;
};
constexpr Layout kWide{16, 6, 5, 32}, kNarrow{8, 5, 6, 16};

inline int64_t up(int64_t count, int64_t step) { return (count + step - 1) / step; }

// A matrix [outputs, taps, channels] in words [blocks, taps, words, lanes]; a product has one tap.
struct Weights {
  Layout layout;
  int64_t outputs, taps, channels;
  Aligned<uint32_t> words;
  alignas(64) float parts[kInputs][kMaxEntries];  // what each entry of a table takes of each input

  int64_t tables() const { return up(channels, kInputs); }  // of one tap
  int64_t tap_words() const { return up(tables(), layout.groups); }
  int64_t blocks() const { return up(outputs, layout.lanes); }
  int64_t pitch() const { return taps * tap_words() * layout.lanes; }  // from one block to the next
  int64_t table_floats() const { return tables() * layout.entries; }   // of one tap
  const uint32_t* block(int64_t index) const { return words.data() + index * pitch(); }
};

inline uint32_t index_of(const Layout& layout, const unsigned* codes) {
  if (layout.entries == kWide.entries) return codes[0] + 3 * codes[1] + 9 * codes[2];
  uint32_t index = 0;
  for (int j = 0; j < kInputs; ++j) index |= (codes[j] == 1 ? 1u : codes[j] == 2 ? 8u : 0u) << j;
  return index;
}

// The code of input j that entry e of a table stands for, of those entries that weights name.
inline unsigned code_of(const Layout& layout, int e, int j) {
  constexpr int power[] = {1, 3, 9};
  if (layout.entries == kWide.entries) return e < 27 ? static_cast<unsigned>(e / power[j] % 3) : 0;
  return (e & 7) >> j & 1 ? (e < 8 ? 1 : 2) : 0;
}

// The weights of `outputs` rows of codes, [outputs, taps, ceil(channels / 4)] bytes of which `size` are there; values:
// those of the codes 1 and 2. Throws std::invalid_argument unless all is as above.
inline Weights checked(const uint8_t* codes, int64_t size, int64_t outputs, int64_t taps, int64_t channels,
                       const float* values, const Layout& layout) {
  const auto refuse = [](const std::string& said) { throw std::invalid_argument(said); };
  const auto within = [&](const char* name, int64_t value) {
    if (value < 1 || value > kMost) refuse(std::string(name) + " is " + std::to_string(value) + ", expected 1 to 2^27");
  };
  within("the number of outputs", outputs);
  within("the number of taps", taps);
  within("the number of input channels", channels);
  within("the number of inputs of an output", channels * taps);  // below 2^54
  const int64_t row = taps * up(channels, 4);
  if (size / row != outputs || size % row) {
    refuse("'codes' has " + std::to_string(size) + " bytes, expected " + std::to_string(outputs) + " x " +
           std::to_string(row));
  }
  Weights made{layout, outputs, taps, channels, {}, {}};
  made.words.assign(static_cast<size_t>(made.blocks() * made.pitch()), 0);
  for (int64_t o = 0; o < outputs; ++o) {
    uint32_t* to = made.words.data() + o / layout.lanes * made.pitch() + o % layout.lanes;
    for (int64_t tap = 0; tap < taps; ++tap, to += made.tap_words() * layout.lanes) {
      const uint8_t* from = codes + o * row + tap * up(channels, 4);
      for (int64_t table = 0; table < made.tables(); ++table) {
        unsigned three[kInputs] = {};
        for (int j = 0; j < kInputs; ++j) {
          const int64_t c = table * kInputs + j;
          if (c < channels) three[j] = from[c / 4] >> 2 * (c % 4) & 3u;
          if (three[j] == 3) {
            refuse("code 3 stands at output " + std::to_string(o) + ", input " + std::to_string(c) +
                   ", but codes are 0, 1 and 2; the weights were damaged");
          }
        }
        to[table / layout.groups * layout.lanes] |= index_of(layout, three) << layout.bits * (table % layout.groups);
      }
    }
  }
  for (int j = 0; j < kInputs; ++j)
    for (int e = 0; e < layout.entries; ++e) {
      const unsigned code = code_of(layout, e, j);
      made.parts[j][e] = code ? values[code - 1] : 0.0f;
    }
  return made;
}

}  // namespace gossamer::ternary
