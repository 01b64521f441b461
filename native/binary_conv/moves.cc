#include "binary_conv/moves.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "binary_conv/layer.h"

namespace gossamer::binary {
namespace {

int64_t product_of(const std::vector<int64_t>& dims, size_t from, size_t to) {
  int64_t count = 1;
  for (size_t axis = from; axis < to; ++axis) count *= dims[axis];
  return count;
}

std::invalid_argument unexpected(const ort::Tensor& x, const std::string& expected) {
  return std::invalid_argument("input 'x' has " + std::to_string(x.dims.size()) + " axes and " +
                               std::to_string(x.dims.empty() ? 0 : x.dims.back()) + " elements on the last, expected " +
                               expected);
}

}  // namespace

BinarySign::BinarySign(const ort::Creation& creation) : product_(flag(creation, "product")) {}

void BinarySign::compute(const ort::Call& call) const {
  const ort::Tensor x = call.input(inputs, 0);
  if (x.dims.empty() || (!product_ && x.dims.size() != 4)) throw unexpected(x, product_ ? "some" : "4 axes");
  const Kernels run = kernels();
  std::vector<int64_t> dims = x.dims;
  if (product_) {
    const int64_t channels = dims.back(), rows = product_of(dims, 0, dims.size() - 1);
    dims.back() = 8 * words_of(channels);
    auto* y = reinterpret_cast<uint64_t*>(call.output<uint8_t>(0, dims));
    run.pack_rows(x.as<float>(), rows, channels, y);
    return;
  }
  const int64_t channels = dims[1], pixels = dims[2] * dims[3];
  dims = {dims[0], dims[2], dims[3], 8 * words_of(channels)};
  auto* y = reinterpret_cast<uint64_t*>(call.output<uint8_t>(0, dims));
  call.parallel(dims[0], [&](int64_t n) {
    run.pack(x.as<float>() + n * channels * pixels, channels, pixels, y + n * pixels * words_of(channels));
  });
}

BinaryMaxPool::BinaryMaxPool(const ort::Creation& creation) : geometry_{} {
  const auto read = [&](const char* name, int64_t* to, size_t count, int64_t least) {
    const auto values = creation.integers(name, count);
    for (size_t i = 0; i < count; ++i) expect_within(name, to[i] = values[i], least);
  };
  read("kernel_shape", geometry_.kernel, 2, 1);
  read("strides", geometry_.stride, 2, 1);
  read("pads", geometry_.pad, 4, 0);
  geometry_.dilation[0] = geometry_.dilation[1] = 1;
  for (int axis = 0; axis < 2; ++axis) {
    if (geometry_.pad[axis] >= geometry_.kernel[axis] || geometry_.pad[axis + 2] >= geometry_.kernel[axis]) {
      throw std::invalid_argument("'pads' must be smaller than 'kernel_shape': a window would lie outside the image");
    }
  }
  const ort::Tensor flips = creation.constant(inputs, 1);
  if (flips.size() % 8) {
    throw std::invalid_argument("'flips' has " + std::to_string(flips.size()) + " bytes, expected whole words of 8");
  }
  flips_.resize(static_cast<size_t>(flips.size() / 8));
  std::memcpy(flips_.data(), flips.data, static_cast<size_t>(flips.size()));
}

void BinaryMaxPool::compute(const ort::Call& call) const {
  const ort::Tensor x = call.input(inputs, 0);
  const auto words = static_cast<int64_t>(flips_.size());
  if (x.dims.size() != 4 || x.dims[3] != 8 * words) throw unexpected(x, "4 and " + std::to_string(8 * words));
  const Geometry& g = geometry_;
  const int64_t h = x.dims[1], w = x.dims[2], height = g.outputs(0, h), width = g.outputs(1, w);
  if (height < 1 || width < 1) {
    throw std::invalid_argument("an input of " + std::to_string(h) + " x " + std::to_string(w) +
                                " is smaller than the kernel");
  }
  auto* to = reinterpret_cast<uint64_t*>(call.output<uint8_t>(0, {x.dims[0], height, width, x.dims[3]}));
  const auto* from = x.as<uint64_t>();
  for (int64_t n = 0; n < x.dims[0]; ++n, from += h * w * words)
    for (int64_t oy = 0; oy < height; ++oy)
      for (int64_t ox = 0; ox < width; ++ox, to += words) {
        std::fill_n(to, words, ~uint64_t{0});  // -1 until a +1 is met
        const int64_t top = oy * g.stride[0] - g.pad[0], left = ox * g.stride[1] - g.pad[1];
        for (int64_t y = std::max<int64_t>(top, 0); y < std::min(top + g.kernel[0], h); ++y)
          for (int64_t at = std::max<int64_t>(left, 0); at < std::min(left + g.kernel[1], w); ++at)
            for (int64_t k = 0; k < words; ++k) to[k] &= from[(y * w + at) * words + k];
        for (int64_t k = 0; k < words; ++k) to[k] ^= flips_[static_cast<size_t>(k)];
      }
}

BinaryFloats::BinaryFloats(const ort::Creation& creation)
    : product_(flag(creation, "product")), channels_(creation.integers("channels", 1)[0]) {
  expect_within("'channels'", channels_, 1);
}

void BinaryFloats::compute(const ort::Call& call) const {
  const ort::Tensor x = call.input(inputs, 0);
  const int64_t bytes = 8 * words_of(channels_);
  if (x.dims.empty() || x.dims.back() != bytes || (!product_ && x.dims.size() != 4)) {
    throw unexpected(x, (product_ ? "" : "4 and ") + std::to_string(bytes));
  }
  std::vector<int64_t> dims = x.dims;
  const bool image = !product_;
  const int64_t images = image ? dims[0] : product_of(dims, 0, dims.size() - 1), pixels = image ? dims[1] * dims[2] : 1;
  if (image) {
    dims = {dims[0], channels_, dims[1], dims[2]};
  } else {
    dims.back() = channels_;
  }
  float* y = call.output<float>(0, dims);
  const auto* from = x.as<uint8_t>();
  for (int64_t n = 0; n < images; ++n, from += pixels * bytes, y += pixels * channels_)
    for (int64_t c = 0; c < channels_; ++c)
      for (int64_t p = 0; p < pixels; ++p)
        y[c * pixels + p] = 1.0f - 2.0f * static_cast<float>(from[p * bytes + c / 8] >> c % 8 & 1);
}

}  // namespace gossamer::binary
