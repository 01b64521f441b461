// The convolution of one image from the three loops of kernels.h: pack signs, lay out patches, count, scale.
#pragma once

#include <algorithm>

#include "binary_conv/kernels.h"

namespace gossamer::binary {

struct Image {
  int64_t h, w, height, width;  // of the input and of the output
  std::vector<uint64_t> signs;  // [h, w, channel_words]
  int64_t pixels() const { return height * width; }
};

constexpr int64_t kGroup = 32;  // pixels of one task: their patches stay in the first cache

// One task: pixels [from, to), to - from <= kGroup. y[o * step_o + pixel * step_p] is written. patches: room for
// kGroup * words.
inline void run_group(const Filters& filters, const Kernels& run, const Image& image, int64_t from, int64_t to,
                      const float* scale, const float* offset, uint64_t* patches, float* y, int64_t step_o,
                      int64_t step_p) {
  const Geometry& g = filters.geometry;
  const int64_t words = g.words(), channel_words = g.channel_words();
  int64_t top[kGroup], left[kGroup];  // where each pixel's patch begins in the image
  bool outside[kGroup];               // whether zeros around the image belong to it
  // work(tap, place) for the taps of a pixel; the place is null outside the image
  const auto each_tap = [&](int64_t i, auto work) {
    int64_t tap = 0;
    for (int64_t ty = 0; ty < g.kernel[0]; ++ty) {
      const int64_t iy = top[i] + ty * g.dilation[0];
      for (int64_t tx = 0; tx < g.kernel[1]; ++tx, ++tap) {
        const int64_t ix = left[i] + tx * g.dilation[1];
        const bool inside = iy >= 0 && iy < image.h && ix >= 0 && ix < image.w;
        work(tap, inside ? image.signs.data() + (iy * image.w + ix) * channel_words : nullptr);
      }
    }
  };
  for (int64_t i = 0; i < to - from; ++i) {
    top[i] = (from + i) / image.width * g.stride[0] - g.pad[0];
    left[i] = (from + i) % image.width * g.stride[1] - g.pad[1];
    outside[i] = false;
    uint64_t* at = patches + i * words;
    each_tap(i, [&](int64_t, const uint64_t* place) {
      for (int64_t k = 0; k < channel_words; ++k) at[k] = place ? place[k] : 0;
      at += channel_words;
      if (!place && !g.pad_with_one) outside[i] = true;
    });
  }
  const auto all = static_cast<int32_t>(g.channels * g.taps());
  int32_t differ[kPixels * kOutputs];
  for (int64_t block = 0; block < filters.blocks; ++block) {
    const uint64_t* weights = filters.words.data() + block * words * kOutputs;
    const int64_t first = block * kOutputs, count = std::min<int64_t>(kOutputs, filters.outputs - first);
    for (int64_t i = 0; i < to - from;) {
      const int64_t together = to - from - i >= kPixels ? kPixels : 1;
      (together == 1 ? run.single : run.tile)(patches + i * words, weights, words, differ);
      int32_t v[kPixels * kOutputs];
      for (int64_t at = 0; at < together * kOutputs; ++at) v[at] = all - 2 * differ[at];
      for (int64_t p = 0; p < together; ++p) {
        if (!outside[i + p]) continue;
        each_tap(i + p, [&](int64_t tap, const uint64_t* place) {
          const int32_t* sums = filters.tap_sums.data() + tap * filters.outputs + first;
          for (int64_t o = 0; !place && o < count; ++o) v[p * kOutputs + o] -= sums[o];
        });
      }
      for (int64_t o = 0; o < count; ++o) {
        float* row = y + (first + o) * step_o + (from + i) * step_p;
        for (int64_t p = 0; p < together; ++p)
          row[p * step_p] = scale[first + o] * static_cast<float>(v[p * kOutputs + o]) + offset[first + o];
      }
      i += together;
    }
  }
}

}  // namespace gossamer::binary
