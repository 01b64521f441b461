// Where the taps of a convolution or pooling lie, on two axes, and which channels an output reads.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace gossamer {

constexpr int64_t kMost = int64_t{1} << 20;  // of any size that a file may name

inline void expect_within(const char* name, int64_t value, int64_t least) {
  if (value < least || value > kMost) {
    throw std::invalid_argument(std::string(name) + " is " + std::to_string(value) + ", expected " +
                                std::to_string(least) + " to 2^20");
  }
}

struct Windows {
  int64_t kernel[2], stride[2], dilation[2], pad[4];  // pad: top, left, bottom, right, as ONNX orders them

  int64_t taps() const { return kernel[0] * kernel[1]; }
  int64_t reach(int axis) const { return dilation[axis] * (kernel[axis] - 1) + 1; }
  int64_t outputs(int axis, int64_t size) const {
    const int64_t padded = size + pad[axis] + pad[axis + 2];
    return padded < reach(axis) ? 0 : (padded - reach(axis)) / stride[axis] + 1;
  }

  // Throws std::invalid_argument for what is no window.
  void check() const {
    for (int axis = 0; axis < 2; ++axis) {
      expect_within("'kernel_shape'", kernel[axis], 1);
      expect_within("'strides'", stride[axis], 1);
      expect_within("'dilations'", dilation[axis], 1);
    }
    for (int64_t one : pad) expect_within("'pads'", one, 0);
    expect_within("the number of taps", taps(), 1);
  }
};

struct Convolution : Windows {
  int64_t channels, groups;  // channels: of all groups

  int64_t inner() const { return channels / groups; }  // channels of one

  // Throws std::invalid_argument for what is no convolution.
  void check(int64_t outputs) const {
    expect_within("'channels'", channels, 1);
    expect_within("'group'", groups, 1);
    expect_within("the number of outputs", outputs, 1);
    Windows::check();
    if (channels % groups || outputs % groups) {
      throw std::invalid_argument(std::to_string(channels) + " channels and " + std::to_string(outputs) +
                                  " outputs cannot be cut into " + std::to_string(groups) + " groups");
    }
  }
};

}  // namespace gossamer
