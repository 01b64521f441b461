// Convolution of signs: every variant against plain loops over floats, and geometries that no exporter wrote.
#pragma once

#include <cmath>

#include "binary_conv/conv.h"
#include "binary_conv/reference.h"
#include "test/check.h"

namespace gossamer::test {

inline void binary_convolutions_equal_their_reference(Random& random, int rounds) {
  const int64_t channel_counts[] = {1, 3, 31, 64, 65, 128, 200}, group_counts[] = {1, 2, 3, 70};
  for (int round = 0; round < rounds; ++round) {
    binary::Geometry g{};
    g.groups = group_counts[random() % 4];
    g.channels = g.groups * channel_counts[random() % (g.groups > 3 ? 2 : 7)];
    for (int axis = 0; axis < 2; ++axis) {
      g.kernel[axis] = 1 + static_cast<int64_t>(random() % 4);
      g.stride[axis] = 1 + static_cast<int64_t>(random() % 2);
      g.dilation[axis] = 1 + static_cast<int64_t>(random() % 2);
    }
    for (auto& pad : g.pad) pad = static_cast<int64_t>(random() % 3);
    g.pad_with_one = random() % 2;
    const int64_t h = 7 + static_cast<int64_t>(random() % 6), w = 7 + static_cast<int64_t>(random() % 6);
    const int64_t outputs = g.groups * (1 + static_cast<int64_t>(random() % (g.groups > 3 ? 2 : 35)));
    std::vector<uint8_t> bits(static_cast<size_t>(outputs * g.taps() * ((g.inner() + 7) / 8)));
    const bool opposed = round % 8 == 1;  // every product is -1: the largest counts
    for (auto& byte : bits) byte = opposed ? 255 : static_cast<uint8_t>(random());
    std::vector<float> x(static_cast<size_t>(g.channels * h * w)), scale(static_cast<size_t>(outputs)), offset(scale);
    for (auto& value : x) value = opposed ? 1.0f : static_cast<float>(random() % 5) - 2.0f;
    if (round % 4 == 0) x[random() % x.size()] = NAN;
    for (auto& value : scale) value = static_cast<float>(random() % 9) - 4.0f;  // small whole numbers: exact sums
    for (auto& value : offset) value = static_cast<float>(random() % 9) - 4.0f;
    const auto expected =
        binary::reference_conv(g, bits.data(), outputs, x.data(), h, w, scale.data(), offset.data());
    const std::vector<float> ones(static_cast<size_t>(outputs), 1), zeros(static_cast<size_t>(outputs), 0);
    const auto sums = binary::reference_conv(g, bits.data(), outputs, x.data(), h, w, ones.data(), zeros.data());
    std::vector<float> rows(x.size());
    for (int64_t c = 0; c < g.channels; ++c)
      for (int64_t p = 0; p < h * w; ++p) rows[p * g.channels + c] = x[c * h * w + p];
    const auto filters = binary::checked(bits.data(), static_cast<int64_t>(bits.size()), g, outputs);
    std::vector<int32_t> thresholds(static_cast<size_t>(filters.blocks * binary::kOutputs), INT32_MIN);
    for (int64_t o = 0; o < outputs; ++o) thresholds[filters.slot(o)] = static_cast<int32_t>(random() % 9) - 4;
    for (const char* variant : variants()) {
      gossamer_set_isa(variant);
      const auto run = binary::kernels();
      const binary::Frame frame(filters, h, w);
      std::vector<uint64_t> signs(static_cast<size_t>(h * w * g.channel_words())), again(signs);
      std::vector<uint64_t> arranged(static_cast<size_t>(frame.words), ~uint64_t{0});
      run.pack(x.data(), g.channels, h * w, signs.data());
      run.pack_rows(rows.data(), h * w, g.channels, again.data());
      CHECK(signs == again);
      frame.arrange(signs.data(), arranged.data());
      const int64_t pixels = frame.pixels(), bytes = 8 * binary::words_of(outputs);
      std::vector<float> y(static_cast<size_t>(outputs * pixels)), last(y);
      std::vector<uint8_t> coded(static_cast<size_t>(pixels * bytes));
      for (int64_t from = 0; from < pixels; from += binary::kTask) {
        const int64_t count = std::min(binary::kTask, pixels - from);
        const auto finish = [&](int64_t block, const int32_t* v) {
          const int64_t first = filters.first(block), held = filters.held(block);
          const binary::Floats planes{scale.data() + first, offset.data() + first, held, pixels, 1};
          const binary::Floats lines{planes.scale, planes.offset, held, 1, outputs};
          run.finish(v, count, planes, y.data() + first * pixels + from);
          run.finish(v, count, lines, last.data() + from * outputs + first);
          uint8_t two[2 * binary::kTask];
          run.compare(v, count, thresholds.data() + block * binary::kOutputs, two, 2);
          for (int64_t p = 0; p < count; ++p)
            binary::merge(two[2 * p] | two[2 * p + 1] << 8, first, coded.data() + (from + p) * bytes);
        };
        const int64_t half = filters.blocks / 2;
        binary::run_task(filters, run, frame, arranged.data(), from, from + count, half, filters.blocks, finish);
        binary::run_task(filters, run, frame, arranged.data(), from, from + count, 0, half, finish);
      }
      CHECK(y.size() == expected.size());
      for (int64_t o = 0; o < outputs; ++o)
        for (int64_t p = 0; p < pixels; ++p) {
          CHECK(y[o * pixels + p] == expected[o * pixels + p]);
          CHECK(last[p * outputs + o] == expected[o * pixels + p]);
          const double v = sums[o * pixels + p];
          CHECK((coded[p * bytes + o / 8] >> o % 8 & 1) == (v < thresholds[filters.slot(o)]));
        }
    }
  }
  gossamer_set_isa("");
}

inline void impossible_geometries_are_refused() {
  const std::vector<uint8_t> bits(9, 0);
  const auto refused = [&](auto change) {
    binary::Geometry g{{{{3, 3}, {1, 1}, {1, 1}, {1, 1, 1, 1}}, 8, 1}, false};
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
  CHECK(refused([](auto& g, int64_t&) { g.groups = 0; }));
  CHECK(refused([](auto& g, int64_t&) { g.groups = -1; }));
  CHECK(refused([](auto& g, int64_t&) { g.groups = 2; }));                // one output
  CHECK(refused([](auto& g, int64_t& outputs) { g.groups = outputs = 3; }));  // of 8 channels
  CHECK(refused([](auto& g, int64_t&) { g.groups = int64_t{1} << 40; }));
}

}  // namespace gossamer::test
