#include "ternary_int8/operator.h"

#include "ort/windows.h"

namespace gossamer::ternary_int8 {
namespace {

constexpr int64_t kRound = 64;  // tasks of kGroup pixels whose patches are held at once

int32_t zero_point_of(const ort::Creation& creation) {
  const int64_t value = creation.integers("zero_point", 1)[0];
  if (value < 0 || value > 255) {
    throw std::invalid_argument("'zero_point' is " + std::to_string(value) + ", expected 0 to 255");
  }
  return static_cast<int32_t>(value);
}

// What moves the bytes of x to unsigned ones.
uint8_t flip_of(const ort::Tensor& x) {
  if (x.element != ort::Element::uint8 && x.element != ort::Element::int8) {
    throw std::invalid_argument("input 'x' has elements of type " + std::to_string(static_cast<int>(x.element)) +
                                ", expected 2 (uint8) or 3 (int8)");
  }
  return x.element == ort::Element::int8 ? 128 : 0;
}

Weights product_of(const ort::Creation& creation) {
  const ort::Tensor codes = creation.constant(kPorts, 1);
  return checked({codes.as<uint8_t>(), codes.size(), codes.dims.empty() ? 0 : codes.dims[0], 1,
                  creation.integers("inputs", 1)[0]});
}

Finish finish_of(const ort::Call& call, int64_t outputs, int64_t step, int32_t zero_point) {
  const auto given = [&](size_t index, bool one) {
    const ort::Tensor values = call.input(kPorts, index);
    if (values.size() != outputs && !(one && values.size() == 1)) {
      throw std::invalid_argument(std::string("input '") + kPorts[index].name + "' has " + std::to_string(values.size()) +
                                  " elements, expected " + (one ? "1 or " : "") + std::to_string(outputs));
    }
    return values;
  };
  const ort::Tensor scale = given(2, true);
  return {scale.as<float>(), scale.size() != 1, call.has(3) ? given(3, false).as<float>() : nullptr, step, zero_point};
}

}  // namespace

TernaryGemmInt8::TernaryGemmInt8(const ort::Creation& creation)
    : zero_point_(zero_point_of(creation)), weights_(product_of(creation)) {}

void TernaryGemmInt8::compute(const ort::Call& call) const {
  const ort::Tensor x = call.input(inputs, 0);
  const uint8_t flip = flip_of(x);
  const int64_t columns = weights_.inputs, row = weights_.row();
  if (x.dims.empty() || x.dims.back() != columns) {
    throw std::invalid_argument("input 'x' has " + std::to_string(x.dims.empty() ? 0 : x.dims.back()) +
                                " elements on its last axis, expected " + std::to_string(columns));
  }
  std::vector<int64_t> dims = x.dims;
  int64_t samples = 1;
  for (size_t axis = 0; axis + 1 < dims.size(); ++axis) samples *= dims[axis];
  dims.back() = weights_.outputs;
  const Finish finish = finish_of(call, weights_.outputs, 1, zero_point_);
  float* y = call.output(0, dims);
  std::vector<uint8_t> rows(static_cast<size_t>(std::min(samples, kGroup) * row));
  std::vector<int32_t> totals(static_cast<size_t>(kGroup));
  const Kernels run = kernels();
  constexpr int64_t kLeastWork = 1 << 12;  // steps of a task: some ten microseconds
  for (int64_t base = 0; base < samples; base += kGroup) {
    const int64_t count = std::min(kGroup, samples - base);
    for (int64_t n = 0; n < count; ++n) {
      const auto* from = x.as<uint8_t>() + (base + n) * columns;
      for (int64_t k = 0; k < columns; ++k) rows[n * row + k] = from[k] ^ flip;
      totals[n] = run.total(rows.data() + n * row, row);
    }
    const int64_t together = std::clamp<int64_t>(kLeastWork / (weights_.steps() * count), 1, weights_.blocks());
    call.parallel(up(weights_.blocks(), together), [&](int64_t task) {
      multiply(weights_, run, rows.data(), totals.data(), count, task * together,
               std::min((task + 1) * together, weights_.blocks()), finish, 0, y + base * weights_.outputs,
               weights_.outputs);
    });
  }
}

TernaryConvInt8::TernaryConvInt8(const ort::Creation& creation) : zero_point_(zero_point_of(creation)), geometry_{} {
  Convolution& g = geometry_;
  ort::read(creation, g);
  const ort::Tensor codes = creation.constant(inputs, 1);
  const int64_t all = codes.dims.empty() ? 0 : codes.dims[0];
  g.check(all);
  const int64_t outputs = all / g.groups, bytes = codes.size() / g.groups;
  for (int64_t group = 0; group < g.groups; ++group)
    groups_.push_back(checked({codes.as<uint8_t>() + group * bytes, bytes, outputs, g.taps(), g.inner()}));
}

void TernaryConvInt8::compute(const ort::Call& call) const {
  const Convolution& g = geometry_;
  const ort::Tensor x = call.input(inputs, 0);
  const uint8_t flip = flip_of(x);
  if (x.dims.size() != 4 || x.dims[1] != g.channels) {
    throw std::invalid_argument("input 'x' has " + std::to_string(x.dims.size()) + " axes and " +
                                std::to_string(x.dims.size() < 2 ? 0 : x.dims[1]) + " channels, expected 4 and " +
                                std::to_string(g.channels));
  }
  const Frame frame(g, g.inner(), x.dims[2], x.dims[3]);
  if (frame.height < 1 || frame.width < 1) {
    throw std::invalid_argument("an input of " + std::to_string(frame.h) + " x " + std::to_string(frame.w) +
                                " is smaller than the kernel");
  }
  const int64_t outputs = groups_[0].outputs, row = groups_[0].row(), pixels = frame.pixels();
  const Finish finish = finish_of(call, outputs * g.groups, pixels, zero_point_);
  float* y = call.output(0, {x.dims[0], outputs * g.groups, frame.height, frame.width});
  const int64_t tasks = up(pixels, kGroup), held = std::min(tasks, kRound) * kGroup;
  std::vector<uint8_t> image(static_cast<size_t>(frame.size)), patches(static_cast<size_t>(held * row));
  std::vector<int32_t> totals(static_cast<size_t>(held));
  const Kernels run = kernels();
  for (int64_t part = 0; part < x.dims[0] * g.groups; ++part) {
    const int64_t group = part % g.groups;
    frame.fill(x.as<uint8_t>() + part * frame.channels * frame.h * frame.w, flip, static_cast<uint8_t>(zero_point_),
               image.data());
    for (int64_t base = 0; base < tasks; base += kRound) {
      call.parallel(std::min(kRound, tasks - base), [&](int64_t task) {
        const int64_t from = (base + task) * kGroup, count = std::min(kGroup, pixels - from);
        uint8_t* rows = patches.data() + task * kGroup * row;  // beyond the inputs they stay 0
        int32_t* sums = totals.data() + task * kGroup;
        for (int64_t p = 0; p < count; ++p) {
          frame.patch(image.data(), from + p, rows + p * row);
          sums[p] = run.total(rows + p * row, row);
        }
        multiply(groups_[group], run, rows, sums, count, 0, groups_[group].blocks(), finish, group * outputs,
                 y + part * outputs * pixels + from, 1);
      });
    }
  }
}

}  // namespace gossamer::ternary_int8
