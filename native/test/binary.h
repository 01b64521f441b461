// Convolution of signs: every variant against plain loops over floats, and geometries that no exporter wrote.
#pragma once

#include <cmath>

#include "binary_conv/conv.h"
#include "binary_conv/reference.h"
#include "test/check.h"

namespace gossamer::test {

inline void binary_convolutions_equal_their_reference(Random& random, int rounds) {
  const int64_t channel_counts[] = {1, 3, 31, 64, 65, 200};
  for (int round = 0; round < rounds; ++round) {
    binary::Geometry g{};
    g.channels = channel_counts[random() % 6];
    for (int axis = 0; axis < 2; ++axis) {
      g.kernel[axis] = 1 + static_cast<int64_t>(random() % 4);
      g.stride[axis] = 1 + static_cast<int64_t>(random() % 2);
      g.dilation[axis] = 1 + static_cast<int64_t>(random() % 2);
    }
    for (auto& pad : g.pad) pad = static_cast<int64_t>(random() % 3);
    g.pad_with_one = random() % 2;
    const int64_t h = 7 + static_cast<int64_t>(random() % 6), w = 7 + static_cast<int64_t>(random() % 6);
    const int64_t outputs = 1 + static_cast<int64_t>(random() % 35);
    std::vector<uint8_t> bits(static_cast<size_t>(outputs * g.taps() * ((g.channels + 7) / 8)));
    for (auto& byte : bits) byte = static_cast<uint8_t>(random());
    std::vector<float> x(static_cast<size_t>(g.channels * h * w)), scale(static_cast<size_t>(outputs)), offset(scale);
    for (auto& value : x) value = static_cast<float>(random() % 5) - 2.0f;
    if (round % 4 == 0) x[random() % x.size()] = NAN;
    for (auto& value : scale) value = static_cast<float>(random() % 9) - 4.0f;  // small whole numbers: exact sums
    for (auto& value : offset) value = static_cast<float>(random() % 9) - 4.0f;
    const auto expected =
        binary::reference_conv(g, bits.data(), outputs, x.data(), h, w, scale.data(), offset.data());
    const auto filters = binary::checked(bits.data(), static_cast<int64_t>(bits.size()), g, outputs);
    for (const char* variant : {"portable", "avx2", "avx512"}) {
      gossamer_set_isa(variant);
      const auto run = binary::kernels();
      binary::Image image{h, w, g.outputs(0, h), g.outputs(1, w), {}};
      image.signs.resize(static_cast<size_t>(h * w * g.channel_words()));
      run.pack(x.data(), g.channels, h * w, image.signs.data());
      std::vector<uint64_t> patches(static_cast<size_t>(binary::kGroup * g.words()));
      std::vector<float> y(static_cast<size_t>(outputs * image.pixels()));
      for (int64_t from = 0; from < image.pixels(); from += binary::kGroup)
        binary::run_group(filters, run, image, from, std::min(from + binary::kGroup, image.pixels()), scale.data(),
                          offset.data(), patches.data(), y.data(), image.pixels(), 1);
      CHECK(y.size() == expected.size());
      for (size_t i = 0; i < y.size(); ++i) CHECK(y[i] == expected[i]);
    }
  }
  gossamer_set_isa("");
}

inline void impossible_geometries_are_refused() {
  const std::vector<uint8_t> bits(9, 0);
  const auto refused = [&](auto change) {
    binary::Geometry g{8, {3, 3}, {1, 1}, {1, 1}, {1, 1, 1, 1}, false};
    int64_t outputs = 1;
    change(g, outputs);
    try {
      binary::checked(bits.data(), 9, g, outputs);
    } catch (const std::invalid_argument&) {
      return true;
    }
    return false;
  };
  CHECK(!refused([](auto&, int64_t&) {}));
  CHECK(refused([](auto& g, int64_t&) { g.channels = 0; }));
  CHECK(refused([](auto& g, int64_t&) { g.channels = 9; }));
  CHECK(refused([](auto& g, int64_t&) { g.kernel[0] = int64_t{1} << 40; }));
  CHECK(refused([](auto& g, int64_t&) { g.stride[1] = 0; }));
  CHECK(refused([](auto& g, int64_t&) { g.pad[3] = -1; }));
  CHECK(refused([](auto&, int64_t& outputs) { outputs = 2; }));
}

}  // namespace gossamer::test
