#include "ternary_gemm/operator.h"

namespace gossamer::ternary {
namespace {

constexpr int64_t kTableFloats = 1 << 17;  // of a pass: half of a second-level cache of one megabyte

Weights product_of(const ort::Creation& creation, const Layout& layout) {
  const ort::Tensor codes = creation.constant(kPorts, 1);
  const int64_t outputs = codes.dims.size() == 2 ? codes.dims[0] : 0;
  return weights_of(creation, layout, 0, outputs, outputs, 1, creation.integers("inputs", 1)[0]);
}

}  // namespace

Weights weights_of(const ort::Creation& creation, const Layout& layout, int64_t from, int64_t outputs, int64_t all,
                   int64_t taps, int64_t channels) {
  const ort::Tensor codes = creation.constant(kPorts, 1), values = creation.constant(kPorts, 2);
  if (values.size() != 2) {
    throw std::invalid_argument("input 'values' has " + std::to_string(values.size()) + " elements, expected 2");
  }
  if (all < 1 || codes.size() % all) {
    throw std::invalid_argument("'codes' has " + std::to_string(codes.size()) + " bytes for " + std::to_string(all) +
                                " outputs");
  }
  const int64_t row = codes.size() / all;
  return checked(codes.as<uint8_t>() + from * row, outputs * row, outputs, taps, channels, values.as<float>(), layout);
}

Finish finish_of(const ort::Call& call, int64_t outputs, int64_t step) {
  const ort::Tensor scale = call.input(kPorts, 3);
  const int64_t given = scale.size();
  if (given != 1 && given != outputs) {
    throw std::invalid_argument("input 'scale' has " + std::to_string(given) + " elements, expected 1 or " +
                                std::to_string(outputs));
  }
  Finish finish{scale.as<float>(), given != 1, nullptr, step};
  if (call.has(4)) {
    const ort::Tensor bias = call.input(kPorts, 4);
    if (bias.size() != outputs) {
      throw std::invalid_argument("input 'bias' has " + std::to_string(bias.size()) + " elements, expected " +
                                  std::to_string(outputs));
    }
    finish.bias = bias.as<float>();
  }
  return finish;
}

TernaryGemm::TernaryGemm(const ort::Creation& creation)
    : kernels_(kernels()), weights_(product_of(creation, kernels_.layout)) {}

void TernaryGemm::compute(const ort::Call& call) const {
  const ort::Tensor x = call.input(inputs, 0);
  const int64_t columns = weights_.channels, rows = weights_.outputs;
  if (x.dims.empty() || x.dims.back() != columns) {
    throw std::invalid_argument("input 'x' has " + std::to_string(x.dims.empty() ? 0 : x.dims.back()) +
                                " elements on its last axis, expected " + std::to_string(columns));
  }
  std::vector<int64_t> dims = x.dims;
  dims.back() = rows;
  int64_t samples = 1;
  for (size_t axis = 0; axis + 1 < dims.size(); ++axis) samples *= dims[axis];
  const Finish finish = finish_of(call, rows, 1);
  float* y = call.output(0, dims);
  const int64_t size = weights_.table_floats();
  const int64_t pass = std::min(std::max<int64_t>(kTableFloats / size, kPoints), samples);
  Aligned<float> tables(static_cast<size_t>(pass * size));
  for (int64_t base = 0; base < samples; base += pass) {
    const int64_t count = std::min(pass, samples - base);
    call.parallel(count, [&](int64_t n) {
      fill_points(weights_, kernels_, x.as<float>() + (base + n) * columns, 1, 1, 0, tables.data() + n * size);
    });
    call.parallel(up(weights_.blocks(), kTogether), [&](int64_t task) {
      const int64_t first = task * kTogether, last = std::min(first + kTogether, weights_.blocks());
      for (int64_t n = 0; n < count; n += kPoints) {
        const float* at[kPoints];
        float* to[kPoints];
        const int points = static_cast<int>(std::min<int64_t>(kPoints, count - n));
        for (int p = 0; p < points; ++p) {
          at[p] = tables.data() + (n + p) * size;
          to[p] = y + (base + n + p) * rows;
        }
        multiply(weights_, kernels_, first, last, at, points, finish, to);
      }
    });
  }
}

}  // namespace gossamer::ternary
