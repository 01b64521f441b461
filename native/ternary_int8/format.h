// Ternary weights times integers of 8 bits: weights of -1, 0 and 1 stay 2 bits in memory, sums are exact integers.
//
// With the weights stored as u = t + 1, which is 0, 1 or 2, and inputs x of 8 unsigned bits with the zero point z, a
// product needs no negative factor:
//     sum (x - z) t = sum x u - sum x - z sum t
// sum x is one number per sample, z sum t one per output. Signed inputs are moved by 128, and z with them.
//
// In use: blocks of 16 outputs, steps of 16 inputs, 64 bytes each. Byte 4 o + j of a step holds the inputs j, 4 + j, 8 + j
// and 12 + j of output o, the first in its lowest bits: shifted by 2 g and masked, the 64 bytes are what an instruction that
// multiplies and adds four neighbouring bytes takes for the inputs 4 g to 4 g + 3. Inputs beyond the last are 0.
// Source: microsoft/BitNet's I2_S unpacks 2 bits and multiplies integers likewise: Wang et al., "bitnet.cpp", 2025,
// arXiv:2502.11880; the order of the bits is ours.
#pragma once

#include <vector>

#include "ternary_gemm/codes.h"

namespace gossamer::ternary_int8 {

using ternary::Codes;
using ternary::up;

constexpr int kOutputs = 16, kInputs = 16, kStep = kOutputs * kInputs / 4;  // of a block, of a step; bytes of a step
constexpr int64_t kMostInputs = int64_t{1} << 22;                           // sums of 2 * 255 each then fit 32 bits

struct Weights {
  int64_t outputs, inputs;
  std::vector<uint8_t> bytes;  // [blocks, steps, kStep]
  std::vector<int32_t> sums;   // [blocks * kOutputs]: sum t

  int64_t blocks() const { return up(outputs, kOutputs); }
  int64_t steps() const { return up(inputs, kInputs); }
  int64_t row() const { return steps() * kInputs; }  // bytes of the inputs of a sample
  const uint8_t* block(int64_t index) const { return bytes.data() + index * steps() * kStep; }
};

// Inputs are ordered tap by tap, channels inside. Throws std::invalid_argument for codes that are none.
inline Weights checked(const Codes& codes) {
  codes.check();
  const int64_t inputs = codes.taps * codes.channels;
  if (inputs > kMostInputs) {
    throw std::invalid_argument("an output has " + std::to_string(inputs) + " inputs, expected at most 2^22");
  }
  Weights made{codes.outputs, inputs, {}, {}};
  made.bytes.resize(static_cast<size_t>(made.blocks() * made.steps() * kStep));
  made.sums.resize(static_cast<size_t>(made.blocks() * kOutputs));
  constexpr unsigned stored[] = {1, 0, 2};  // u of the codes of 0, -1 and 1
  for (int64_t o = 0; o < codes.outputs; ++o)
    for (int64_t tap = 0, k = 0; tap < codes.taps; ++tap)
      for (int64_t c = 0; c < codes.channels; ++c, ++k) {
        const unsigned u = stored[codes.at(o, tap, c)];
        const int64_t within = k % kInputs, byte = o % kOutputs * 4 + within % 4;
        made.bytes[(o / kOutputs * made.steps() + k / kInputs) * kStep + byte] |=
            static_cast<uint8_t>(u << 2 * (within / 4));
        made.sums[o] += static_cast<int32_t>(u) - 1;
      }
  return made;
}

}  // namespace gossamer::ternary_int8
