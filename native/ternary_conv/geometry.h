// Where the taps of a convolution lie.
#pragma once

#include "windows.h"

namespace gossamer::ternary {

struct Geometry : Windows {
  int64_t channels, groups;  // channels: of all groups

  // Whether some output reads this row (axis 0) or column (axis 1); false for most where a kernel of one tap strides.
  bool reads(int axis, int64_t place) const { return kernel[axis] > 1 || (place + pad[axis]) % stride[axis] == 0; }

  // Throws std::invalid_argument for what is no convolution.
  void check(int64_t all_outputs) const {
    expect_within("'channels'", channels, 1);
    expect_within("'group'", groups, 1);
    expect_within("the number of outputs", all_outputs, 1);
    Windows::check();
    if (channels % groups || all_outputs % groups) {
      throw std::invalid_argument(std::to_string(channels) + " channels and " + std::to_string(all_outputs) +
                                  " outputs cannot be cut into " + std::to_string(groups) + " groups");
    }
  }
};

}  // namespace gossamer::ternary
