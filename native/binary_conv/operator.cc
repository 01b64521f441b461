#include "binary_conv/operator.h"

namespace gossamer::binary {
namespace {

Geometry geometry_of(const ort::Creation& creation) {
  Geometry g{};
  const auto read = [&](const char* name, int64_t* to, size_t count) {
    const auto values = creation.integers(name, count);
    std::copy_n(values.data(), count, to);
  };
  int64_t pad_value = 0;
  read("channels", &g.channels, 1);
  read("kernel_shape", g.kernel, 2);
  read("strides", g.stride, 2);
  read("dilations", g.dilation, 2);
  read("pads", g.pad, 4);
  read("pad_value", &pad_value, 1);
  if (pad_value != 0 && pad_value != 1) {
    throw std::invalid_argument("'pad_value' is " + std::to_string(pad_value) + ", expected 0 or 1");
  }
  g.pad_with_one = pad_value == 1;
  return g;
}

Filters filters_of(const ort::Creation& creation) {
  const ort::Tensor bits = creation.constant(BinaryConv::inputs, 1);
  return checked(bits.as<uint8_t>(), bits.size(), geometry_of(creation), bits.dims.empty() ? 0 : bits.dims[0]);
}

}  // namespace

BinaryConv::BinaryConv(const ort::Creation& creation) : filters_(filters_of(creation)) {}

void BinaryConv::compute(const ort::Call& call) const {
  const Geometry& g = filters_.geometry;
  const ort::Tensor x = call.input(inputs, 0), scale = call.input(inputs, 2), offset = call.input(inputs, 3);
  if (scale.size() != filters_.outputs || offset.size() != filters_.outputs) {
    throw std::invalid_argument("'scale' and 'offset' have " + std::to_string(scale.size()) + " and " +
                                std::to_string(offset.size()) + " elements, expected " +
                                std::to_string(filters_.outputs));
  }
  const bool product = x.dims.size() != 4;  // one row of pixels, channels innermost
  std::vector<int64_t> dims = x.dims;
  const int64_t channels = dims.empty() ? 0 : product ? dims.back() : dims[1];
  const bool one_tap = g.taps() == 1 && g.stride[0] == 1 && g.stride[1] == 1 && !(g.pad[0] | g.pad[1] | g.pad[2] | g.pad[3]);
  if (channels != g.channels || (product && !one_tap)) {
    throw std::invalid_argument("input 'x' has " + std::to_string(dims.size()) + " axes and " + std::to_string(channels) +
                                " channels, expected 4 and " + std::to_string(g.channels));
  }
  Image image{};
  image.h = product ? 1 : dims[2];
  image.w = product ? 1 : dims[3];
  if (product) {
    dims.back() = filters_.outputs;
    for (size_t axis = 0; axis + 1 < dims.size(); ++axis) image.w *= dims[axis];
  } else {
    dims = {dims[0], filters_.outputs, g.outputs(0, image.h), g.outputs(1, image.w)};
  }
  image.height = product ? 1 : dims[2];
  image.width = product ? image.w : dims[3];
  if (!product && (image.height < 1 || image.width < 1)) {
    throw std::invalid_argument("an input of " + std::to_string(image.h) + " x " + std::to_string(image.w) +
                                " is smaller than the kernel");
  }
  float* y = call.output(0, dims);
  const Kernels run = kernels();
  const int64_t groups = (image.pixels() + kGroup - 1) / kGroup;
  image.signs.resize(static_cast<size_t>(image.h * image.w * g.channel_words()));
  std::vector<uint64_t> patches(static_cast<size_t>(groups * kGroup * g.words()));
  const int64_t images = product ? 1 : x.dims[0];
  for (int64_t n = 0; n < images; ++n) {
    const float* from = x.as<float>() + n * g.channels * image.h * image.w;
    if (product) {
      for (int64_t p = 0; p < image.w; ++p) pack_portable(from + p * g.channels, g.channels, 1, &image.signs[p * g.channel_words()]);
    } else {
      run.pack(from, g.channels, image.h * image.w, image.signs.data());
    }
    float* to = y + n * filters_.outputs * image.pixels();
    call.parallel(groups, [&](int64_t group) {
      const int64_t first = group * kGroup, last = std::min(first + kGroup, image.pixels());
      run_group(filters_, run, image, first, last, scale.as<float>(), offset.as<float>(),
                patches.data() + first * g.words(), to, product ? 1 : image.pixels(), product ? filters_.outputs : 1);
    });
  }
}

}  // namespace gossamer::binary
