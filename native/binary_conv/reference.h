// The definition, in plain loops over floats: y [outputs, height, width] of one image x [channels, h, w].
#pragma once

#include "binary_conv/format.h"

namespace gossamer::binary {

inline std::vector<double> reference_conv(const Geometry& g, const uint8_t* bits, int64_t outputs, const float* x,
                                          int64_t h, int64_t w, const float* scale, const float* offset) {
  const int64_t height = g.outputs(0, h), width = g.outputs(1, w), inner = g.inner(), bytes = (inner + 7) / 8;
  std::vector<double> y;
  for (int64_t o = 0; o < outputs; ++o)
    for (int64_t oy = 0; oy < height; ++oy)
      for (int64_t ox = 0; ox < width; ++ox) {
        double sum = 0;
        for (int64_t ty = 0; ty < g.kernel[0]; ++ty)
          for (int64_t tx = 0; tx < g.kernel[1]; ++tx)
            for (int64_t c = 0; c < inner; ++c) {
              const int64_t channel = o / (outputs / g.groups) * inner + c;
              const int64_t iy = oy * g.stride[0] - g.pad[0] + ty * g.dilation[0];
              const int64_t ix = ox * g.stride[1] - g.pad[1] + tx * g.dilation[1];
              const bool inside = iy >= 0 && iy < h && ix >= 0 && ix < w;
              const double outside = g.pad_with_one ? 1 : 0;
              const double a = inside ? (x[(channel * h + iy) * w + ix] >= 0 ? 1 : -1) : outside;
              const int bit = bits[((o * g.kernel[0] + ty) * g.kernel[1] + tx) * bytes + c / 8] >> c % 8 & 1;
              sum += bit ? -a : a;
            }
        y.push_back(scale[o] * sum + offset[o]);
      }
  return y;
}

}  // namespace gossamer::binary
