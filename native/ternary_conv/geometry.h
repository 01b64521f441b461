// Where the taps of a convolution lie.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace gossamer::ternary {

struct Geometry {
  int64_t channels, groups;  // channels: of all groups
  int64_t kernel[2], stride[2], dilation[2], pad[4];  // pad: top, left, bottom, right, as ONNX orders them

  int64_t taps() const { return kernel[0] * kernel[1]; }
  int64_t reach(int axis) const { return dilation[axis] * (kernel[axis] - 1) + 1; }
  int64_t outputs(int axis, int64_t size) const {
    const int64_t padded = size + pad[axis] + pad[axis + 2];
    return padded < reach(axis) ? 0 : (padded - reach(axis)) / stride[axis] + 1;
  }
  // Whether some output reads this row (axis 0) or column (axis 1); false for most where a kernel of one tap strides.
  bool reads(int axis, int64_t place) const { return kernel[axis] > 1 || (place + pad[axis]) % stride[axis] == 0; }

  // Throws std::invalid_argument for what is no convolution.
  void check(int64_t all_outputs) const {
    const auto within = [](const char* name, int64_t value, int64_t least) {
      if (value < least || value > int64_t{1} << 20) {
        throw std::invalid_argument(std::string(name) + " is " + std::to_string(value) + ", expected " +
                                    std::to_string(least) + " to 2^20");
      }
    };
    within("'channels'", channels, 1);
    within("'group'", groups, 1);
    within("the number of outputs", all_outputs, 1);
    for (int axis = 0; axis < 2; ++axis) {
      within("'kernel_shape'", kernel[axis], 1);
      within("'strides'", stride[axis], 1);
      within("'dilations'", dilation[axis], 1);
    }
    for (int64_t one : pad) within("'pads'", one, 0);
    within("the number of taps", taps(), 1);
    if (channels % groups || all_outputs % groups) {
      throw std::invalid_argument(std::to_string(channels) + " channels and " + std::to_string(all_outputs) +
                                  " outputs cannot be cut into " + std::to_string(groups) + " groups");
    }
  }
};

}  // namespace gossamer::ternary
