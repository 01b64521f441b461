#include "ternary_conv/operator.h"

#include "ort/windows.h"
#include "ternary_conv/conv.h"

namespace gossamer::ternary {
namespace {

Geometry geometry_of(const ort::Creation& creation) {
  Geometry g{};
  ort::read(creation, g);
  return g;
}

}  // namespace

TernaryConv::TernaryConv(const ort::Creation& creation) : kernels_(kernels()), geometry_(geometry_of(creation)) {
  const ort::Tensor codes = creation.constant(inputs, 1);
  const int64_t all = codes.dims.empty() ? 0 : codes.dims[0];
  geometry_.check(all);
  const int64_t each = all / geometry_.groups;
  for (int64_t group = 0; group < geometry_.groups; ++group)
    groups_.push_back(weights_of(creation, kernels_.layout, group * each, each, all, geometry_.taps(),
                                 geometry_.inner()));
}

void TernaryConv::compute(const ort::Call& call) const {
  const Geometry& g = geometry_;
  const ort::Tensor x = call.input(inputs, 0);
  if (x.dims.size() != 4 || x.dims[1] != g.channels) {
    throw std::invalid_argument("input 'x' has " + std::to_string(x.dims.size()) + " axes and " +
                                std::to_string(x.dims.size() < 2 ? 0 : x.dims[1]) + " channels, expected 4 and " +
                                std::to_string(g.channels));
  }
  const Image image{x.dims[2], x.dims[3], g.outputs(0, x.dims[2]), g.outputs(1, x.dims[3])};
  if (image.height < 1 || image.width < 1 || image.h == 0 || image.w == 0) {
    throw std::invalid_argument("an input of " + std::to_string(image.h) + " x " + std::to_string(image.w) +
                                " is smaller than the kernel");
  }
  const int64_t each = groups_[0].outputs, channels = groups_[0].channels;
  const int64_t pixels = image.height * image.width, area = image.h * image.w;
  const Finish finish = finish_of(call, each * g.groups, pixels);
  float* y = call.output(0, {x.dims[0], each * g.groups, image.height, image.width});
  const auto parallel = [&](int64_t count, const auto& work) { call.parallel(count, work); };
  for (int64_t group = 0; group < g.groups && x.dims[0]; ++group) {
    Conv conv(g, image, groups_[group], kernels_);
    for (int64_t n = 0; n < x.dims[0]; ++n)
      conv(x.as<float>() + (n * g.groups + group) * channels * area, y + (n * g.groups + group) * each * pixels,
           finish.from(group * each), parallel);
  }
}

}  // namespace gossamer::ternary
