// Where the taps of a convolution lie.
#pragma once

#include "windows.h"

namespace gossamer::ternary {

struct Geometry : Convolution {
  // Whether some output reads this row (axis 0) or column (axis 1); false for most where a kernel of one tap strides.
  bool reads(int axis, int64_t place) const { return kernel[axis] > 1 || (place + pad[axis]) % stride[axis] == 0; }
};

}  // namespace gossamer::ternary
