// The definition, in plain loops, on the codes as they are given: sums of (x - z) t, [outputs, height, width], of one image
// x [channels, h, w] and one group.
#pragma once

#include <vector>

#include "ternary_int8/format.h"
#include "windows.h"

namespace gossamer::ternary_int8 {

inline std::vector<int64_t> reference_conv(const Convolution& g, const Codes& codes, const uint8_t* x, int64_t h,
                                           int64_t w, int32_t zero_point) {
  std::vector<int64_t> sums;
  constexpr int64_t values[] = {0, -1, 1};
  for (int64_t o = 0; o < codes.outputs; ++o)
    for (int64_t oy = 0; oy < g.outputs(0, h); ++oy)
      for (int64_t ox = 0; ox < g.outputs(1, w); ++ox) {
        int64_t sum = 0;
        for (int64_t tap = 0; tap < g.taps(); ++tap) {
          const int64_t iy = oy * g.stride[0] - g.pad[0] + tap / g.kernel[1] * g.dilation[0];
          const int64_t ix = ox * g.stride[1] - g.pad[1] + tap % g.kernel[1] * g.dilation[1];
          if (iy < 0 || iy >= h || ix < 0 || ix >= w) continue;
          for (int64_t c = 0; c < codes.channels; ++c)
            sum += values[codes.at(o, tap, c)] * (x[(c * h + iy) * w + ix] - zero_point);
        }
        sums.push_back(sum);
      }
  return sums;
}

}  // namespace gossamer::ternary_int8
