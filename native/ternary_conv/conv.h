// The convolution of one image and one group: tables of the pixels, row by row, then products over the taps.
//
// A pixel's tables serve every output and every tap that meets it. Rows of tables lie in a ring, as many as a band of
// output rows reads; from band to band only new rows are filled. Outside the image lies a pixel of zeros.
#pragma once

#include "ternary_conv/geometry.h"
#include "ternary_gemm/product.h"

namespace gossamer::ternary {

constexpr int64_t kRingFloats = 1 << 17;  // half of a second-level cache of one megabyte

struct Image {
  int64_t h, w, height, width;  // of the input and of the output
};

class Conv {
 public:
  Conv(const Geometry& geometry, const Image& image, const Weights& weights, const Kernels& run)
      : g_(geometry), image_(image), weights_(weights), run_(run), size_(weights.table_floats()) {
    const int64_t row = image.w * size_, fit = (kRingFloats / row - g_.reach(0)) / g_.stride[0] + 1;
    band_ = std::clamp<int64_t>(fit, 1, image.height);
    slots_ = std::min(image.h, (band_ - 1) * g_.stride[0] + g_.reach(0));
    ring_.resize(static_cast<size_t>(slots_ * row));
    zeros_.assign(static_cast<size_t>(size_), 0.0f);
    at_.resize(static_cast<size_t>(up(band_ * image.width, kPoints) * kPoints * g_.taps()));
  }

  // x [channels of the group, h, w], y [outputs of the group, height, width]; parallel(count, work) calls work(i).
  template <class Parallel>
  void operator()(const float* x, float* y, const Finish& finish, const Parallel& parallel) {
    int64_t built = 0;  // rows before it need no filling
    for (int64_t first = 0; first < image_.height; first += band_) {
      const int64_t last = std::min(first + band_, image_.height);
      const int64_t from = std::max(built, first * g_.stride[0] - g_.pad[0]);
      built = std::clamp<int64_t>((last - 1) * g_.stride[0] - g_.pad[0] + g_.reach(0), 0, image_.h);
      parallel(std::max<int64_t>(built - from, 0), [&](int64_t row) { fill(x, from + row); });
      const int64_t pixels = (last - first) * image_.width;
      parallel(up(pixels, kPoints), [&](int64_t pair) {
        const int points = static_cast<int>(std::min<int64_t>(kPoints, pixels - pair * kPoints));
        multiply_pair(first * image_.width, pair, points, y, finish);
      });
    }
  }

 private:
  float* tables(int64_t iy, int64_t ix) { return ring_.data() + (iy % slots_ * image_.w + ix) * size_; }

  void fill(const float* x, int64_t iy) {
    if (!g_.reads(0, iy)) return;
    const int64_t area = image_.h * image_.w;
    const float* row = x + iy * image_.w;
    if (g_.kernel[1] > 1 || g_.stride[1] == 1)
      return fill_points(weights_, run_, row, area, image_.w, 1, tables(iy, 0));
    for (int64_t ix = 0; ix < image_.w; ++ix)
      if (g_.reads(1, ix)) fill_points(weights_, run_, row + ix, area, 1, 0, tables(iy, ix));
  }

  void multiply_pair(int64_t base, int64_t pair, int points, float* y, const Finish& finish) {
    const float** at = at_.data() + pair * kPoints * g_.taps();
    float* to[kPoints];
    for (int p = 0; p < points; ++p) {
      const int64_t pixel = base + pair * kPoints + p;
      const int64_t top = pixel / image_.width * g_.stride[0] - g_.pad[0];
      const int64_t left = pixel % image_.width * g_.stride[1] - g_.pad[1];
      to[p] = y + pixel;
      for (int64_t tap = 0; tap < g_.taps(); ++tap) {
        const int64_t iy = top + tap / g_.kernel[1] * g_.dilation[0], ix = left + tap % g_.kernel[1] * g_.dilation[1];
        const bool inside = iy >= 0 && iy < image_.h && ix >= 0 && ix < image_.w;
        at[tap * points + p] = inside ? tables(iy, ix) : zeros_.data();
      }
    }
    multiply(weights_, run_, 0, weights_.blocks(), at, points, finish, to);
  }

  const Geometry& g_;
  const Image image_;
  const Weights& weights_;
  const Kernels& run_;
  const int64_t size_;  // floats of a pixel's tables
  int64_t band_, slots_;
  Aligned<float> ring_, zeros_;
  std::vector<const float*> at_;  // of each pair of pixels: [taps, points]
};

}  // namespace gossamer::ternary
