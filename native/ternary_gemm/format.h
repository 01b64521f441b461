// Ternary weights times floats, by tables: what three inputs can add to an output is computed once for all outputs.
//
// Three weights of {minus, 0, plus} are one of 27 combinations. A table holds, for three inputs x0, x1, x2, the sum
// d0 x0 + d1 x1 + d2 x2 of each combination, and each output adds the entry its weights name: one look-up and one
// addition where a dense product takes three multiply-adds. Inputs beyond the last count as 0.
//
// Given:   codes of 2 bits as in codes.h
// In use:  words of 32 bits for `lanes` outputs side by side, a block; a word holds the indices of `groups` tables, the
//          first in its lowest bits
//     wide     16 outputs; 5 bits, d0 + 3 d1 + 9 d2, into 32 entries: 18 weights in a word (1.78 bits each)
//     narrow   8 outputs; 3 bits into the 8 sums of the first value and 3 into those of the second: 15 weights
// Source: Park et al., "LUT-GEMM", ICLR 2024, arXiv:2206.09557 (tables of partial sums); Wei et al., "T-MAC", EuroSys
// 2025, arXiv:2407.00088 (tables in registers); the base of three and the floats are ours.
#pragma once

#include "ternary_gemm/aligned.h"
#include "ternary_gemm/codes.h"

namespace gossamer::ternary {

constexpr int kInputs = 3;  // of a table
constexpr int kMaxLanes = 16, kMaxEntries = 32;

struct Layout {
  int lanes, groups, bits, entries;
};
constexpr Layout kWide{16, 6, 5, 32}, kNarrow{8, 5, 6, 16};

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

// The weights of `outputs` rows of codes, `size` bytes; values: those of the codes 1 and 2. Throws std::invalid_argument
// unless all is as above.
inline Weights checked(const uint8_t* codes, int64_t size, int64_t outputs, int64_t taps, int64_t channels,
                       const float* values, const Layout& layout) {
  const Codes given{codes, size, outputs, taps, channels};
  given.check();
  Weights made{layout, outputs, taps, channels, {}, {}};
  made.words.assign(static_cast<size_t>(made.blocks() * made.pitch()), 0);
  for (int64_t o = 0; o < outputs; ++o) {
    uint32_t* to = made.words.data() + o / layout.lanes * made.pitch() + o % layout.lanes;
    for (int64_t tap = 0; tap < taps; ++tap, to += made.tap_words() * layout.lanes) {
      for (int64_t table = 0; table < made.tables(); ++table) {
        unsigned three[kInputs] = {};
        for (int j = 0; j < kInputs && table * kInputs + j < channels; ++j) three[j] = given.at(o, tap, table * kInputs + j);
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
