// Ternary weights times integers: every variant against plain loops over the same integers.
#pragma once

#include "ternary_int8/product.h"
#include "ternary_int8/reference.h"
#include "test/ternary.h"

namespace gossamer::test {

inline void ternary_integers_equal_their_reference(Random& random, int rounds) {
  namespace t8 = ternary_int8;
  for (int round = 0; round < rounds; ++round) {
    const int64_t channel_counts[] = {1, 3, 16, 17, 60, 300};
    Convolution g{};
    g.groups = 1;
    g.channels = channel_counts[random() % 6];
    for (int axis = 0; axis < 2; ++axis) {
      g.kernel[axis] = 1 + static_cast<int64_t>(random() % 4);
      g.stride[axis] = 1 + static_cast<int64_t>(random() % 3);
      g.dilation[axis] = 1 + static_cast<int64_t>(random() % 3);
    }
    for (auto& pad : g.pad) pad = static_cast<int64_t>(random() % 4);
    const int64_t outputs = 1 + static_cast<int64_t>(random() % 40);
    const int64_t h = 10 + static_cast<int64_t>(random() % 8), w = 10 + static_cast<int64_t>(random() % 8);
    const auto bytes = ternary_codes(random, outputs * g.taps(), g.channels);
    const t8::Codes codes{bytes.data(), static_cast<int64_t>(bytes.size()), outputs, g.taps(), g.channels};
    const bool largest = round % 4 == 0;  // what 16 bits must hold
    const auto zero_point = static_cast<int32_t>(random() % 256);
    std::vector<uint8_t> x(static_cast<size_t>(g.channels * h * w));
    for (auto& value : x) value = static_cast<uint8_t>(largest ? 255 : random());
    const auto wanted = t8::reference_conv(g, codes, x.data(), h, w, zero_point);
    const auto weights = t8::checked(codes);
    const t8::Frame frame(g, g.channels, h, w);
    std::vector<uint8_t> image(static_cast<size_t>(frame.size));
    frame.fill(x.data(), 0, static_cast<uint8_t>(zero_point), image.data());
    const int64_t pixels = frame.pixels();
    std::vector<uint8_t> rows(static_cast<size_t>(pixels * weights.row()));
    for (int64_t p = 0; p < pixels; ++p) frame.patch(image.data(), p, rows.data() + p * weights.row());
    const float one = 1.0f;
    for (const char* variant : variants()) {
      gossamer_set_isa(variant);
      std::vector<float> y(wanted.size());
      std::vector<int32_t> totals;
      for (int64_t p = 0; p < pixels; ++p)
        totals.push_back(t8::kernels().total(rows.data() + p * weights.row(), weights.row()));
      for (int64_t from = 0; from < pixels; from += t8::kGroup)
        t8::multiply(weights, t8::kernels(), rows.data() + from * weights.row(), totals.data() + from,
                     std::min(t8::kGroup, pixels - from), 0, weights.blocks(), {&one, false, nullptr, pixels, zero_point},
                     0, y.data() + from, 1);
      for (size_t i = 0; i < y.size(); ++i) CHECK(y[i] == static_cast<float>(wanted[i]));
    }
  }
  gossamer_set_isa("");
}

}  // namespace gossamer::test
