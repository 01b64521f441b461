// Convolution of signs: weights and inputs of +1 and -1, one bit each.
//
// A bit is 0 for +1 and 1 for -1; an input is -1 unless x >= 0, so zero counts as +1. Channels fill words of 64 bits, the
// bits beyond the last channel are 0 on both sides. With K = channels * taps and acc the bits in which a patch and a filter
// differ, their product is
//     v = K - 2 acc
// since a differing pair adds -1 and an equal one +1. Outside the image lies either +1 (words of zero bits) or 0: then the
// taps outside add nothing, so what words of zero bits added for them, sum of w over those taps, is taken back.
//     y = scale[o] v + offset[o]       batch norm and the scale of the weights, folded
//     y = +1 where v >= threshold[o]   the same before a sign, whose result is bits again
// Source: Rastegari et al., "XNOR-Net", ECCV 2016, arXiv:1603.05279, section 3.2; Bannink et al., "Larq Compute Engine",
// MLSys 2021, arXiv:2011.09398 (the bit of a sign, the correction for padding, thresholds).
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "windows.h"

namespace gossamer::binary {

constexpr int kOutputs = 16;  // of a block; filters of a block lie word by word, so a vector holds several outputs
constexpr int kPixels = 4;    // of a tile

inline int64_t words_of(int64_t channels) { return (channels + 63) / 64; }

struct Geometry : Windows {
  int64_t channels;
  bool pad_with_one;  // else with 0

  int64_t channel_words() const { return words_of(channels); }
  int64_t words() const { return taps() * channel_words(); }
  bool padded() const { return pad[0] | pad[1] | pad[2] | pad[3]; }
};

struct Filters {
  Geometry geometry;
  int64_t outputs, blocks;
  std::vector<uint64_t> words;    // [blocks, words, kOutputs]
  std::vector<int32_t> tap_sums;  // [taps, blocks * kOutputs]: sum over the channels of w

  int32_t products() const { return static_cast<int32_t>(geometry.channels * geometry.taps()); }  // K
};

// Filters [outputs, kernel_h, kernel_w, ceil(channels / 8)] of bits, the first channel of a byte in its lowest.
inline Filters checked(const uint8_t* bits, int64_t size, const Geometry& geometry, int64_t outputs) {
  expect_within("'channels'", geometry.channels, 1);
  expect_within("the number of outputs", outputs, 1);
  geometry.check();
  expect_within("'channels' times the taps", geometry.channels * geometry.taps(), 1);
  const int64_t bytes = (geometry.channels + 7) / 8, taps = geometry.taps();
  if (size / taps / bytes != outputs || size != outputs * taps * bytes) {
    throw std::invalid_argument("the filters have " + std::to_string(size) + " bytes, expected " +
                                std::to_string(outputs) + " x " + std::to_string(taps) + " x " + std::to_string(bytes));
  }
  Filters made{geometry, outputs, (outputs + kOutputs - 1) / kOutputs, {}, {}};
  made.words.resize(static_cast<size_t>(made.blocks * geometry.words() * kOutputs));
  made.tap_sums.resize(static_cast<size_t>(taps * made.blocks * kOutputs));
  for (int64_t o = 0; o < outputs; ++o)
    for (int64_t tap = 0; tap < taps; ++tap) {
      int32_t sum = 0;
      for (int64_t c = 0; c < geometry.channels; ++c) {
        const uint64_t bit = bits[(o * taps + tap) * bytes + c / 8] >> c % 8 & 1;
        const int64_t word = tap * geometry.channel_words() + c / 64;
        made.words[(o / kOutputs * geometry.words() + word) * kOutputs + o % kOutputs] |= bit << c % 64;
        sum += bit ? -1 : 1;
      }
      made.tap_sums[tap * made.blocks * kOutputs + o] = sum;
    }
  return made;
}

}  // namespace gossamer::binary
