// Ternary products and convolutions: every variant against plain loops in doubles, and fields that no exporter wrote.
#pragma once

#include <cmath>

#include "ternary_conv/conv.h"
#include "ternary_conv/reference.h"
#include "ternary_gemm/reference.h"
#include "test/check.h"

namespace gossamer::test {

inline std::vector<uint8_t> ternary_codes(Random& random, int64_t rows, int64_t channels) {
  std::vector<uint8_t> codes(static_cast<size_t>(rows * ternary::up(channels, 4)));
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t c = 0; c < channels; ++c)
      codes[row * ternary::up(channels, 4) + c / 4] |= static_cast<uint8_t>(random() % 3 << 2 * (c % 4));
  return codes;
}

inline std::vector<float> small_numbers(Random& random, int64_t count) {  // whole: their sums are exact
  std::vector<float> numbers(static_cast<size_t>(count));
  for (auto& number : numbers) number = static_cast<float>(random() % 17) - 8.0f;
  return numbers;
}

inline void ternary_products_equal_their_reference(Random& random) {
  for (int64_t outputs : {1, 7, 16, 17, 40, 130})
    for (int64_t inputs : {1, 2, 3, 4, 15, 17, 18, 19, 53, 54, 55, 200}) {
      const auto codes = ternary_codes(random, outputs, inputs);
      const float values[] = {static_cast<float>(random() % 5) - 2.0f, static_cast<float>(random() % 5) + 0.5f};
      const auto x = small_numbers(random, 2 * inputs), scale = small_numbers(random, outputs);
      const auto bias = small_numbers(random, outputs);
      for (const char* variant : variants()) {
        gossamer_set_isa(variant);
        const auto run = ternary::kernels();
        const auto weights = ternary::checked(codes.data(), static_cast<int64_t>(codes.size()), outputs, 1, inputs,
                                              values, run.layout);
        const int points = 1 + static_cast<int>(random() % 2);
        ternary::Aligned<float> tables(static_cast<size_t>(points * weights.table_floats()));
        ternary::fill_points(weights, run, x.data(), 1, points, inputs, tables.data());
        std::vector<float> y(static_cast<size_t>(points * outputs));
        const float* at[] = {tables.data(), tables.data() + (points - 1) * weights.table_floats()};
        float* to[] = {y.data(), y.data() + (points - 1) * outputs};
        const ternary::Finish finish{scale.data(), true, bias.data(), 1};
        ternary::multiply(weights, run, 0, weights.blocks(), at, points, finish, to);
        for (int p = 0; p < points; ++p) {
          const auto wanted = ternary::reference_product(codes.data(), outputs, inputs, values, x.data() + p * inputs);
          for (int64_t o = 0; o < outputs; ++o) CHECK(to[p][o] == scale[o] * wanted[o] + bias[o]);
        }
      }
    }
  gossamer_set_isa("");
}

inline void ternary_convolutions_equal_their_reference(Random& random, int rounds) {
  for (int round = 0; round < rounds; ++round) {
    ternary::Geometry g{};
    const int64_t channel_counts[] = {1, 2, 3, 16, 19, 60};
    g.groups = 1;
    g.channels = channel_counts[random() % 6];
    for (int axis = 0; axis < 2; ++axis) {
      g.kernel[axis] = 1 + static_cast<int64_t>(random() % 4);
      g.stride[axis] = 1 + static_cast<int64_t>(random() % 4);
      g.dilation[axis] = 1 + static_cast<int64_t>(random() % 3);
    }
    for (auto& pad : g.pad) pad = static_cast<int64_t>(random() % 4);
    const int64_t outputs = 1 + static_cast<int64_t>(random() % 70);
    const int64_t h = 10 + static_cast<int64_t>(random() % 30), w = 10 + static_cast<int64_t>(random() % 30);
    const ternary::Image image{h, w, g.outputs(0, h), g.outputs(1, w)};
    const auto codes = ternary_codes(random, outputs * g.taps(), g.channels);
    const float values[] = {-1.0f, 2.0f};
    const auto x = small_numbers(random, g.channels * h * w), scale = small_numbers(random, outputs);
    const auto wanted = ternary::reference_conv(g, image, codes.data(), outputs, values, x.data());
    for (const char* variant : variants()) {
      gossamer_set_isa(variant);
      const auto run = ternary::kernels();
      const auto weights = ternary::checked(codes.data(), static_cast<int64_t>(codes.size()), outputs, g.taps(),
                                            g.channels, values, run.layout);
      std::vector<float> y(wanted.size());
      const ternary::Finish finish{scale.data(), true, nullptr, image.height * image.width};
      ternary::Conv conv(g, image, weights, run);
      for (int again = 0; again < 2; ++again)  // as for a second image: the ring holds rows of the first
        conv(x.data(), y.data(), finish, [](int64_t count, auto work) {
          for (int64_t i = 0; i < count; ++i) work(i);
        });
      for (size_t i = 0; i < y.size(); ++i)
        CHECK(y[i] == scale[i / static_cast<size_t>(image.height * image.width)] * wanted[i]);
    }
  }
  gossamer_set_isa("");
}

// Either the check refuses changed fields, or running them stays inside their memory (the sanitizers watch).
inline void damaged_ternary_fields_are_refused_or_harmless(Random& random, int rounds) {
  int refused = 0;
  for (int round = 0; round < rounds; ++round) {
    ternary::Geometry g{{{{3, 2}, {1, 2}, {1, 1}, {1, 1, 1, 1}}, 1 + static_cast<int64_t>(random() % 40), 1}};
    int64_t outputs = 1 + static_cast<int64_t>(random() % 40);
    auto codes = ternary_codes(random, outputs * g.taps(), g.channels);
    float values[] = {-1.0f, 1.0f};
    if (random() % 2) codes[random() % codes.size()] = static_cast<uint8_t>(random());
    if (random() % 8 == 0) codes.resize(random() % (codes.size() + 3));
    if (random() % 8 == 0) values[random() % 2] = random() % 2 ? NAN : INFINITY;
    if (random() % 8 == 0) outputs += static_cast<int64_t>(random() % 3) - 1;
    int64_t* const numbers[] = {&g.channels, g.kernel, g.kernel + 1, g.stride, g.dilation, g.pad, &g.groups};
    const int64_t strange[] = {-1, 0, 2, 5, int64_t{1} << 40, INT64_MAX, INT64_MIN};
    if (random() % 2) *numbers[random() % 7] = strange[random() % 7];
    gossamer_set_isa(variants()[static_cast<size_t>(round) % variants().size()]);
    try {
      const auto run = ternary::kernels();
      g.check(outputs);
      const auto weights = ternary::checked(codes.data(), static_cast<int64_t>(codes.size()), outputs, g.taps(),
                                            g.inner(), values, run.layout);
      const ternary::Image image{6, 7, g.outputs(0, 6), g.outputs(1, 7)};
      if (g.groups > 1 || image.height < 1 || image.width < 1) continue;
      std::vector<float> x(static_cast<size_t>(g.channels * 6 * 7), 1.0f), scale(1, 1.0f);
      std::vector<float> y(static_cast<size_t>(outputs * image.height * image.width));
      ternary::Conv conv(g, image, weights, run);
      conv(x.data(), y.data(), {scale.data(), false, nullptr, image.height * image.width},
           [](int64_t count, auto work) {
             for (int64_t i = 0; i < count; ++i) work(i);
           });
    } catch (const std::invalid_argument&) {
      ++refused;
    }
  }
  CHECK(refused > rounds / 10);
  gossamer_set_isa("");
}

}  // namespace gossamer::test
