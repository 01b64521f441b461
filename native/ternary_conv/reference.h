// The definition, in plain loops and doubles: sums [outputs, height, width] of one image x [channels, h, w], one group.
#pragma once

#include "ternary_conv/conv.h"
#include "ternary_gemm/reference.h"

namespace gossamer::ternary {

inline std::vector<double> reference_conv(const Geometry& g, const Image& image, const uint8_t* codes, int64_t outputs,
                                          const float* values, const float* x) {
  std::vector<double> y;
  for (int64_t o = 0; o < outputs; ++o)
    for (int64_t oy = 0; oy < image.height; ++oy)
      for (int64_t ox = 0; ox < image.width; ++ox) {
        double sum = 0;
        for (int64_t tap = 0; tap < g.taps(); ++tap) {
          const int64_t iy = oy * g.stride[0] - g.pad[0] + tap / g.kernel[1] * g.dilation[0];
          const int64_t ix = ox * g.stride[1] - g.pad[1] + tap % g.kernel[1] * g.dilation[1];
          if (iy < 0 || iy >= image.h || ix < 0 || ix >= image.w) continue;
          for (int64_t c = 0; c < g.channels; ++c)
            sum += weight_at(codes, up(g.channels, 4), values, o * g.taps() + tap, c) *
                   x[(c * image.h + iy) * image.w + ix];
        }
        y.push_back(sum);
      }
  return y;
}

}  // namespace gossamer::ternary
