// From the kernels: rows of inputs times a range of blocks, and the patches of an image as such rows.
#pragma once

#include <algorithm>
#include <cstring>

#include "ternary_int8/kernels.h"
#include "windows.h"

namespace gossamer::ternary_int8 {

// y[o * step] = scale[o] sum (x - z) t + bias[o]
struct Finish {
  const float* scale;  // of all outputs, or of each
  bool each;
  const float* bias;  // or null
  int64_t step;
  int32_t zero_point;
};

constexpr int64_t kGroup = 32;  // rows whose results are held until a block of outputs is written

// `points` <= kGroup rows, weights.row() bytes each and filled with 0 beyond the inputs, times blocks [first, last); totals:
// the sum of each row; point p writes to y + p * apart, where output 0 goes. Outputs of all groups are numbered from
// `output` on.
inline void multiply(const Weights& weights, const Kernels& run, const uint8_t* rows, const int32_t* totals, int64_t points,
                     int64_t first, int64_t last, const Finish& finish, int64_t output, float* y, int64_t apart) {
  alignas(64) int32_t sums[kPoints * kOutputs], shift[kOutputs];
  alignas(64) float scale[kOutputs] = {}, bias[kOutputs] = {}, held[kGroup * kOutputs];
  for (int64_t block = first; block < last; ++block) {
    const int64_t base = block * kOutputs, count = std::min<int64_t>(kOutputs, weights.outputs - base);
    for (int64_t o = 0; o < kOutputs; ++o) shift[o] = finish.zero_point * weights.sums[base + o];
    for (int64_t o = 0; o < count; ++o) {
      scale[o] = finish.scale[finish.each ? output + base + o : 0];
      if (finish.bias) bias[o] = finish.bias[output + base + o];
    }
    for (int64_t from = 0; from < points; from += kPoints) {
      const int64_t together = std::min<int64_t>(kPoints, points - from);
      const uint8_t* x[kPoints];
      for (int64_t p = 0; p < together; ++p) x[p] = rows + (from + p) * weights.row();
      run.tile[together - 1](weights.block(block), weights.steps(), x, sums);
      for (int64_t p = 0; p < together; ++p)
        for (int o = 0; o < kOutputs; ++o)
          held[(from + p) * kOutputs + o] =
              scale[o] * static_cast<float>(sums[p * kOutputs + o] - totals[from + p] - shift[o]) + bias[o];
    }
    float* to = y + base * finish.step;
    if (finish.step == 1) {
      for (int64_t p = 0; p < points; ++p) std::copy_n(held + p * kOutputs, count, to + p * apart);
      continue;
    }
    for (int64_t o = 0; o < count; ++o)
      for (int64_t p = 0; p < points; ++p) to[o * finish.step + p * apart] = held[p * kOutputs + o];
  }
}

// An image [h, w, channels] of bytes with the zero point around it: what a patch reads lies in few pieces.
struct Frame {
  Frame(const Convolution& geometry, int64_t all_channels, int64_t image_h, int64_t image_w)
      : g(geometry),
        channels(all_channels),
        h(image_h),
        w(image_w),
        height(g.outputs(0, h)),
        width(g.outputs(1, w)),
        line((w + g.pad[1] + g.pad[3]) * channels),
        size((h + g.pad[0] + g.pad[2]) * line) {}
  int64_t pixels() const { return height * width; }

  // From planes [channels, h, w]; `flip` 128 moves signed bytes to unsigned ones.
  void fill(const uint8_t* x, uint8_t flip, uint8_t zero_point, uint8_t* to) const {
    std::fill_n(to, size, zero_point);
    constexpr int64_t kTile = 16;  // pixels whose lines stay in the cache
    for (int64_t y = 0; y < h; ++y) {
      uint8_t* row = to + (y + g.pad[0]) * line + g.pad[1] * channels;
      for (int64_t base = 0; base < w; base += kTile)
        for (int64_t c = 0; c < channels; ++c)
          for (int64_t at = base; at < std::min(base + kTile, w); ++at)
            row[at * channels + c] = static_cast<uint8_t>(x[(c * h + y) * w + at] ^ flip);
    }
  }

  // The inputs of one output pixel, tap by tap; `row` has at least as many bytes.
  void patch(const uint8_t* image, int64_t pixel, uint8_t* row) const {
    const int64_t top = pixel / width * g.stride[0], left = pixel % width * g.stride[1];
    const bool whole = g.dilation[1] == 1;  // the taps of a row of the kernel follow each other
    const int64_t pieces = whole ? 1 : g.kernel[1], length = whole ? g.kernel[1] * channels : channels;
    for (int64_t ty = 0; ty < g.kernel[0]; ++ty)
      for (int64_t piece = 0; piece < pieces; ++piece, row += length)
        std::memcpy(row, image + (top + ty * g.dilation[0]) * line + (left + piece * g.dilation[1]) * channels,
                    static_cast<size_t>(length));
  }

  const Convolution& g;
  int64_t channels;                       // of one group
  int64_t h, w, height, width, line, size;  // of the input, of the output; bytes from row to row, and of all
};

}  // namespace gossamer::ternary_int8
