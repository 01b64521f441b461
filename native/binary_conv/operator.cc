#include "binary_conv/operator.h"

#include <limits>

#include "ort/windows.h"

namespace gossamer::binary {

bool flag(const ort::Creation& creation, const char* name) {
  const int64_t value = creation.integers(name, 1)[0];
  if (value != 0 && value != 1) {
    throw std::invalid_argument(std::string("'") + name + "' is " + std::to_string(value) + ", expected 0 or 1");
  }
  return value == 1;
}

namespace {

Filters filters_of(const ort::Creation& creation, const ort::Port* inputs) {
  Geometry g{};
  ort::read(creation, g);
  g.pad_with_one = flag(creation, "pad_value");
  const ort::Tensor bits = creation.constant(inputs, 1);
  return checked(bits.as<uint8_t>(), bits.size(), g, bits.dims.empty() ? 0 : bits.dims[0]);
}

template <class Type>
std::vector<Type> per_output(const ort::Creation& creation, const ort::Port* inputs, size_t index,
                             const Filters& filters, Type beyond) {
  const ort::Tensor given = creation.constant(inputs, index);
  if (given.size() != filters.outputs) {
    throw std::invalid_argument(std::string("'") + inputs[index].name + "' has " + std::to_string(given.size()) +
                                " elements, expected " + std::to_string(filters.outputs));
  }
  std::vector<Type> values(static_cast<size_t>(filters.blocks * kOutputs), beyond);
  for (int64_t o = 0; o < filters.outputs; ++o) values[static_cast<size_t>(filters.slot(o))] = given.as<Type>()[o];
  return values;
}

constexpr int64_t kLine = 16;  // floats of a line of the cache

inline void fetch(const void* place) {
#if defined(__GNUC__) || defined(__clang__)
  __builtin_prefetch(place, 1);
#else
  (void)place;
#endif
}

}  // namespace

Layer::Layer(const ort::Creation& creation, const ort::Port* inputs)
    : product_(flag(creation, "product")), flatten_(flag(creation, "flatten")), filters_(filters_of(creation, inputs)) {
  const Geometry& g = filters_.geometry;
  const bool row = g.stride[0] == 1 && g.stride[1] == 1 && !g.padded();
  const bool plain = row && g.groups == 1;
  if ((product_ && (g.taps() != 1 || !plain || flatten_)) || (flatten_ && (g.kernel[0] != 1 || !plain))) {
    throw std::invalid_argument(
        "'product' and 'flatten' exclude each other and take a kernel of one row, without padding, strides or groups");
  }
}

Layer::Shape Layer::shape(const ort::Tensor& x) const {
  const Geometry& g = filters_.geometry;
  const size_t rank = x.dims.size(), axes = product_ ? std::max<size_t>(rank, 1) : 4;
  Shape made{x.element == ort::Element::uint8, product_, 1, 1, 1, x.dims};
  if ((x.element != ort::Element::float32 || flatten_) && !made.bits) {
    throw std::invalid_argument("input 'x' has elements of type " + std::to_string(static_cast<int>(x.element)) +
                                ", expected " + (flatten_ ? "" : "1 (float32) or ") + "2 (uint8, bits)");
  }
  const int64_t expected = made.bits ? 8 * g.channel_words() : g.channels;
  const int64_t found = rank != axes ? 0 : made.product || made.bits ? x.dims.back() : x.dims[1];
  if (found != expected) {
    throw std::invalid_argument("input 'x' has " + std::to_string(rank) + " axes and " + std::to_string(found) +
                                (made.bits ? " bytes per pixel" : " channels") + ", expected " + std::to_string(axes) +
                                " and " + std::to_string(expected));
  }
  if (made.product) {
    for (size_t axis = 0; axis + 1 < rank; ++axis) made.w *= x.dims[axis];
  } else {
    made.images = x.dims[0];
    made.h = x.dims[made.bits ? 1 : 2];
    made.w = x.dims[made.bits ? 2 : 3];
    if (flatten_) made.w *= made.h, made.h = 1;
    if (g.outputs(0, made.h) < 1 || g.outputs(1, made.w) < 1 || (flatten_ && made.w != g.taps())) {
      throw std::invalid_argument("an input of " + std::to_string(made.h) + " x " + std::to_string(made.w) +
                                  (flatten_ ? " does not match the kernel" : " is smaller than the kernel"));
    }
  }
  return made;
}

BinaryConv::BinaryConv(const ort::Creation& creation)
    : layer_(creation, inputs),
      scale_(per_output(creation, inputs, 2, layer_.filters(), 0.0f)),
      offset_(per_output(creation, inputs, 3, layer_.filters(), 0.0f)) {}

void BinaryConv::compute(const ort::Call& call) const {
  const Filters& filters = layer_.filters();
  const ort::Tensor x = call.input(inputs, 0);
  const Layer::Shape shape = layer_.shape(x);
  const Frame frame(filters, shape.h, shape.w);
  std::vector<int64_t> dims = shape.dims;
  if (shape.product) {
    dims.back() = filters.outputs;
  } else if (layer_.flatten()) {
    dims = {shape.images, filters.outputs};
  } else {
    dims = {shape.images, filters.outputs, frame.height, frame.width};
  }
  float* y = call.output<float>(0, dims);
  const Finish run = kernels().finish;
  const int64_t step_o = shape.product ? 1 : frame.pixels(), step_p = shape.product ? filters.outputs : 1;
  layer_.run(call, x, shape, frame, true, [&](int64_t image, int64_t block, int64_t from, int64_t count, const int32_t* v) {
    const int64_t first = filters.first(block), held = filters.held(block), slot = block * kOutputs;
    const Floats how{scale_.data() + slot, offset_.data() + slot, held, step_o, step_p};
    float* to = y + image * filters.outputs * frame.pixels() + first * step_o + from * step_p;
    run(v, count, how, to);
    // stores that miss are done one after the other: ask for the lines of the next block while it is computed
    const int64_t next = std::min<int64_t>(kOutputs, filters.outputs - first - held);
    for (int64_t o = held; step_p == 1 && o < held + next; ++o)
      for (int64_t p = 0; p < count + kLine; p += kLine) fetch(to + o * step_o + std::min(p, count - 1));
  });
}

BinaryConvSign::BinaryConvSign(const ort::Creation& creation)
    : layer_(creation, inputs),
      thresholds_(per_output(creation, inputs, 2, layer_.filters(), std::numeric_limits<int32_t>::min())) {}

void BinaryConvSign::compute(const ort::Call& call) const {
  const Filters& filters = layer_.filters();
  const ort::Tensor x = call.input(inputs, 0);
  const Layer::Shape shape = layer_.shape(x);
  const Frame frame(filters, shape.h, shape.w);
  const int64_t bytes = 8 * words_of(filters.outputs);
  std::vector<int64_t> dims = shape.dims;
  if (shape.product) {
    dims.back() = bytes;
  } else if (layer_.flatten()) {
    dims = {shape.images, bytes};
  } else {
    dims = {shape.images, frame.height, frame.width, bytes};
  }
  uint8_t* y = call.output<uint8_t>(0, dims);
  const Compare run = kernels().compare;
  const bool apart = filters.bytes_apart();
  const int64_t total = shape.images * frame.pixels(), filled = apart ? 2 * filters.blocks : 0;
  for (int64_t p = 0; filled < bytes && p < total; ++p) std::fill_n(y + p * bytes + filled, bytes - filled, uint8_t{0});
  layer_.run(call, x, shape, frame, apart, [&](int64_t image, int64_t block, int64_t from, int64_t count, const int32_t* v) {
    uint8_t* to = y + (image * frame.pixels() + from) * bytes;
    const int32_t* thresholds = thresholds_.data() + block * kOutputs;
    if (apart) return run(v, count, thresholds, to + 2 * block, bytes);
    std::array<uint8_t, 2 * kTask> two;
    run(v, count, thresholds, two.data(), 2);
    for (int64_t p = 0; p < count; ++p)
      merge(two[2 * p] | uint32_t{two[2 * p + 1]} << 8, filters.first(block), to + p * bytes);
  });
}

}  // namespace gossamer::binary
