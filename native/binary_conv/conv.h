// The convolution of one image from the loops of kernels.h: signs in words, patches read in place, sums, and what follows.
#pragma once

#include <algorithm>
#include <array>
#include <memory>

#include "binary_conv/kernels.h"

namespace gossamer::binary {

constexpr int64_t kTask = 32;  // pixels of one task: their sums, and the words they read, stay in the first cache

// A pixel of words [channel_words] as words [groups, group_words].
inline void realign(const Geometry& g, const uint64_t* from, uint64_t* to) {
  for (int64_t group = 0; group < g.groups; ++group)
    for (int64_t c = 0; c < g.inner(); c += 64, ++to) {
      const int64_t at = group * g.inner() + c, shift = at % 64, held = std::min<int64_t>(64, g.inner() - c);
      *to = from[at / 64] >> shift;
      if (shift + held > 64) *to |= from[at / 64 + 1] << (64 - shift);
      if (held < 64) *to &= (uint64_t{1} << held) - 1;
    }
}

// Sets bits of a block among those of a pixel, the first of them bit `first`.
inline void merge(uint32_t bits, int64_t first, uint8_t* pixel) {
  pixel += first / 8;
  for (bits <<= first % 8; bits; bits >>= 8) *pixel++ |= static_cast<uint8_t>(bits);
}

// Where the words of a patch lie, for images of one size.
struct Frame {
  Frame(const Filters& filters, int64_t image_h, int64_t image_w)
      : g(filters.geometry),
        h(image_h),
        w(image_w),
        height(g.outputs(0, h)),
        width(g.outputs(1, w)),
        row((w + g.pad[1] + g.pad[3]) * g.pixel_words()),
        words((h + g.pad[0] + g.pad[2]) * row) {
    for (int64_t ty = 0; ty < g.kernel[0]; ++ty)
      for (int64_t tx = 0; tx < g.kernel[1]; ++tx)
        for (int64_t c = 0; c < g.group_words(); ++c)
          steps.push_back(ty * g.dilation[0] * row + tx * g.dilation[1] * g.pixel_words() + c);
  }
  int64_t pixels() const { return height * width; }

  // Whether filters meet other words than those that lie between operators.
  bool arranged() const { return g.padded() || g.realigned(); }

  // Words [h, w, channel_words] as words [.., .., pixel_words] with the words of +1 around them.
  void arrange(const uint64_t* signs, uint64_t* to) const {
    const int64_t left = g.pad[1] * g.pixel_words(), line = w * g.pixel_words();
    to = std::fill_n(to, g.pad[0] * row, uint64_t{0});
    for (int64_t y = 0; y < h; ++y, signs += w * g.channel_words(), to += row) {
      std::fill_n(to, left, uint64_t{0});
      if (g.realigned()) {
        for (int64_t x = 0; x < w; ++x) realign(g, signs + x * g.channel_words(), to + left + x * g.pixel_words());
      } else {
        std::copy_n(signs, line, to + left);
      }
      std::fill(to + left + line, to + row, uint64_t{0});
    }
    std::fill_n(to, g.pad[2] * row, uint64_t{0});
  }

  Geometry g;
  int64_t h, w;           // of the input
  int64_t height, width;  // of the output
  int64_t row, words;     // of the arranged image: words from one row to the next, and of all
  std::vector<int64_t> steps;
};

// Pixels [from, to), to - from <= kTask, and blocks [first, last): finish(block, v [to - from, kOutputs]) for each block.
template <class Finish>
void run_task(const Filters& filters, const Kernels& run, const Frame& frame, const uint64_t* signs, int64_t from,
              int64_t to, int64_t first, int64_t last, const Finish& finish) {
  const Geometry& g = frame.g;
  std::array<const uint64_t*, kTask> pixels;  // their words of one group
  std::array<bool, kTask> outside;  // whether zeros around the image belong to the patch
  const auto begins = [&](int64_t pixel, int axis) {
    return (axis == 0 ? pixel / frame.width : pixel % frame.width) * g.stride[axis] - g.pad[axis];
  };
  const auto within = [&](int axis, int64_t at) { return at >= 0 && at < (axis == 0 ? frame.h : frame.w); };
  const int64_t count = to - from;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t top = begins(from + i, 0), left = begins(from + i, 1);
    pixels[i] = signs + (top + g.pad[0]) * frame.row + (left + g.pad[1]) * g.pixel_words();
    outside[i] = !g.pad_with_one && !(within(0, top) && within(0, top + (g.kernel[0] - 1) * g.dilation[0]) &&
                                      within(1, left) && within(1, left + (g.kernel[1] - 1) * g.dilation[1]));
  }
  const int64_t words = g.words();
  alignas(64) int32_t v[kTask * kOutputs];
  int64_t group = 0;
  for (int64_t block = first; block < last; ++block) {
    if (const int64_t further = filters.group(block) - group) {
      for (int64_t i = 0; i < count; ++i) pixels[i] += further * g.group_words();
      group += further;
    }
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
