// The convolution of one image from the loops of kernels.h: signs in words, patches read in place, sums, and what follows.
#pragma once

#include <algorithm>
#include <array>
#include <memory>

#include "binary_conv/kernels.h"

namespace gossamer::binary {

constexpr int64_t kGroup = 32;  // pixels of one task: their sums, and the words they read, stay in the first cache

// Where the words of a patch lie, for images of one size.
struct Frame {
  Frame(const Filters& filters, int64_t image_h, int64_t image_w)
      : g(filters.geometry),
        h(image_h),
        w(image_w),
        height(g.outputs(0, h)),
        width(g.outputs(1, w)),
        row((w + g.pad[1] + g.pad[3]) * g.channel_words()),
        words((h + g.pad[0] + g.pad[2]) * row) {
    for (int64_t ty = 0; ty < g.kernel[0]; ++ty)
      for (int64_t tx = 0; tx < g.kernel[1]; ++tx)
        for (int64_t c = 0; c < g.channel_words(); ++c)
          steps.push_back(ty * g.dilation[0] * row + tx * g.dilation[1] * g.channel_words() + c);
  }
  int64_t pixels() const { return height * width; }

  // Words [h, w, channel_words] with the words of +1 around them.
  void surround(const uint64_t* signs, uint64_t* padded) const {
    const int64_t line = w * g.channel_words(), left = g.pad[1] * g.channel_words();
    uint64_t* to = std::fill_n(padded, g.pad[0] * row, uint64_t{0});
    for (int64_t y = 0; y < h; ++y, to += row) {
      std::fill_n(to, left, uint64_t{0});
      std::copy_n(signs + y * line, line, to + left);
      std::fill(to + left + line, to + row, uint64_t{0});
    }
    std::fill_n(to, g.pad[2] * row, uint64_t{0});
  }

  Geometry g;
  int64_t h, w;           // of the input
  int64_t height, width;  // of the output
  int64_t row, words;     // of the padded image: words from one row to the next, and of all
  std::vector<int64_t> steps;
};

// Pixels [from, to), to - from <= kGroup, and blocks [first, last): finish(block, v [to - from, kOutputs]) for each block.
template <class Finish>
void run_group(const Filters& filters, const Kernels& run, const Frame& frame, const uint64_t* signs, int64_t from,
               int64_t to, int64_t first, int64_t last, const Finish& finish) {
  const Geometry& g = frame.g;
  std::array<const uint64_t*, kGroup> pixels;
  std::array<bool, kGroup> outside;  // whether zeros around the image belong to the patch
  const auto begins = [&](int64_t pixel, int axis) {
    return (axis == 0 ? pixel / frame.width : pixel % frame.width) * g.stride[axis] - g.pad[axis];
  };
  const auto within = [&](int axis, int64_t at) { return at >= 0 && at < (axis == 0 ? frame.h : frame.w); };
  const int64_t count = to - from;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t top = begins(from + i, 0), left = begins(from + i, 1);
    pixels[i] = signs + (top + g.pad[0]) * frame.row + (left + g.pad[1]) * g.channel_words();
    outside[i] = !g.pad_with_one && !(within(0, top) && within(0, top + (g.kernel[0] - 1) * g.dilation[0]) &&
                                      within(1, left) && within(1, left + (g.kernel[1] - 1) * g.dilation[1]));
  }
  const int64_t words = g.words();
  alignas(64) int32_t v[kGroup * kOutputs];
  for (int64_t block = first; block < last; ++block) {
    const uint64_t* weights = filters.words.data() + block * words * kOutputs;
    for (int64_t i = 0; i < count; i += kPixels) {
      const int64_t together = std::min<int64_t>(kPixels, count - i);
      run.tile[together - 1](&pixels[i], frame.steps.data(), words, weights, filters.products(), v + i * kOutputs);
    }
    for (int64_t i = 0; i < count; ++i) {
      if (!outside[i]) continue;
      const int64_t top = begins(from + i, 0), left = begins(from + i, 1);
      for (int64_t ty = 0, tap = 0; ty < g.kernel[0]; ++ty)
        for (int64_t tx = 0; tx < g.kernel[1]; ++tx, ++tap) {
          if (within(0, top + ty * g.dilation[0]) && within(1, left + tx * g.dilation[1])) continue;
          const int32_t* sums = filters.tap_sums.data() + (tap * filters.blocks + block) * kOutputs;
          for (int o = 0; o < kOutputs; ++o) v[i * kOutputs + o] -= sums[o];
        }
    }
    finish(block, v);
  }
}

}  // namespace gossamer::binary
