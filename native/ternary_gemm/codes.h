// Ternary weights as files give them: codes of 2 bits, four to a byte, the first in the lowest bits: 0 is 0, 1 the first value,
// 2 the second; rows [outputs, taps, ceil(channels / 4)] of bytes, the last byte of a tap filled with zeros.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace gossamer::ternary {

constexpr int64_t kMost = int64_t{1} << 27;

inline int64_t up(int64_t count, int64_t step) { return (count + step - 1) / step; }

struct Codes {
  const uint8_t* bytes;
  int64_t size, outputs, taps, channels;

  int64_t row() const { return taps * up(channels, 4); }

  // Throws std::invalid_argument unless the sizes fit each other.
  void check() const {
    const auto refuse = [](const std::string& said) { throw std::invalid_argument(said); };
    const auto within = [&](const char* name, int64_t value) {
      if (value < 1 || value > kMost) refuse(std::string(name) + " is " + std::to_string(value) + ", expected 1 to 2^27");
    };
    within("the number of outputs", outputs);
    within("the number of taps", taps);
    within("the number of input channels", channels);
    within("the number of inputs of an output", channels * taps);  // below 2^54
    if (size / row() != outputs || size % row()) {
      refuse("'codes' has " + std::to_string(size) + " bytes, expected " + std::to_string(outputs) + " x " +
             std::to_string(row()));
    }
  }

  // The code at a checked place; throws std::invalid_argument for 3, which no code is.
  unsigned at(int64_t o, int64_t tap, int64_t c) const {
    const unsigned code = bytes[o * row() + tap * up(channels, 4) + c / 4] >> 2 * (c % 4) & 3u;
    if (code == 3) {
      throw std::invalid_argument("code 3 stands at output " + std::to_string(o) + ", input " + std::to_string(c) +
                                  ", but codes are 0, 1 and 2; the weights were damaged");
    }
    return code;
  }
};

}  // namespace gossamer::ternary
