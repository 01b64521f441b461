// Convolution of signs: weights and inputs of +1 and -1, one bit each.
//
// A bit is 0 for +1 and 1 for -1; an input is -1 unless x >= 0, so zero counts as +1. Channels fill words of 64 bits, the
// bits beyond the last channel are 0 on both sides. Of several groups each begins a word of its own, and its filters a block
// of their own. With K = channels of a group * taps and acc the bits in which a patch and a filter differ, their product is
//     v = K - 2 acc
// since a differing pair adds -1 and an equal one +1. Outside the image lies either +1 (words of zero bits) or 0: then the
// taps outside add nothing, so what words of zero bits added for them, sum of w over those taps, is taken back.
//     y = scale[o] v + offset[o]       batch norm and the scale of the weights, folded
//     y = +1 where v >= threshold[o]   the same before a sign, whose result is bits again
// Source: Rastegari et al., "XNOR-Net", ECCV 2016, arXiv:1603.05279, section 3.2; Bannink et al., "Larq Compute Engine",
// MLSys 2021, arXiv:2011.09398 (the bit of a sign, the correction for padding, thresholds).
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "windows.h"

namespace gossamer::binary {

constexpr int kOutputs = 16;  // of a block; filters of a block lie word by word, so a vector holds several outputs
constexpr int kPixels = 4;    // of a tile

inline int64_t words_of(int64_t channels) { return (channels + 63) / 64; }

struct Geometry : Convolution {
  bool pad_with_one;  // else with 0

  int64_t channel_words() const { return words_of(channels); }        // of a pixel between operators
  int64_t group_words() const { return words_of(inner()); }
  int64_t pixel_words() const { return groups * group_words(); }      // of a pixel as filters meet it
  bool realigned() const { return groups > 1 && inner() % 64 != 0; }  // whether the two differ
  int64_t words() const { return taps() * group_words(); }            // of a filter
  bool padded() const { return pad[0] | pad[1] | pad[2] | pad[3]; }
};

struct Filters {
  Geometry geometry;
  int64_t outputs, blocks;
  std::vector<uint64_t> words;    // [blocks, words, kOutputs]
  std::vector<int32_t> tap_sums;  // [taps, blocks * kOutputs]: sum over the channels of w

  int32_t products() const { return static_cast<int32_t>(geometry.inner() * geometry.taps()); }  // K

  // Outputs and blocks of a group; the group of a block, its first output, and how many it holds.
  int64_t outputs_each() const { return outputs / geometry.groups; }
  int64_t blocks_each() const { return blocks / geometry.groups; }
  int64_t group(int64_t block) const { return block / blocks_each(); }
  int64_t first(int64_t block) const { return group(block) * outputs_each() + block % blocks_each() * kOutputs; }
  int64_t held(int64_t block) const {
    return std::min<int64_t>(kOutputs, outputs_each() - block % blocks_each() * kOutputs);
  }
  // Where output o lies among the outputs of all blocks.
  int64_t slot(int64_t o) const { return o / outputs_each() * blocks_each() * kOutputs + o % outputs_each(); }
  // Whether the bits of every block are whole bytes.
  bool bytes_apart() const { return geometry.groups == 1 || outputs_each() % kOutputs == 0; }
};

// Filters [outputs, kernel_h, kernel_w, ceil(channels of a group / 8)] of bits, the first channel of a byte in its lowest.
inline Filters checked(const uint8_t* bits, int64_t size, const Geometry& geometry, int64_t outputs) {
  geometry.check(outputs);
  expect_within("'channels' times the taps", geometry.channels * geometry.taps(), 1);
  const int64_t inner = geometry.inner(), bytes = (inner + 7) / 8, taps = geometry.taps();
  if (size / taps / bytes != outputs || size != outputs * taps * bytes) {
    throw std::invalid_argument("the filters have " + std::to_string(size) + " bytes, expected " +
                                std::to_string(outputs) + " x " + std::to_string(taps) + " x " + std::to_string(bytes));
  }
  const int64_t blocks = geometry.groups * ((outputs / geometry.groups + kOutputs - 1) / kOutputs);
  Filters made{geometry, outputs, blocks, {}, {}};
  made.words.resize(static_cast<size_t>(made.blocks * geometry.words() * kOutputs));
  made.tap_sums.resize(static_cast<size_t>(taps * made.blocks * kOutputs));
  for (int64_t o = 0; o < outputs; ++o)
    for (int64_t tap = 0; tap < taps; ++tap) {
      const int64_t slot = made.slot(o);
      int32_t sum = 0;
      for (int64_t c = 0; c < inner; ++c) {
        const uint64_t bit = bits[(o * taps + tap) * bytes + c / 8] >> c % 8 & 1;
        const int64_t word = tap * geometry.group_words() + c / 64;
        made.words[(slot / kOutputs * geometry.words() + word) * kOutputs + slot % kOutputs] |= bit << c % 64;
        sum += bit ? -1 : 1;
      }
      made.tap_sums[tap * blocks * kOutputs + slot] = sum;
    }
  return made;
}

}  // namespace gossamer::binary
