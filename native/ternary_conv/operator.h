// TernaryConv (domain ai.gossamer, version 1): y[n, o] = scale[o] (conv of x with w)[n, o] + bias[o], zeros around x.
//
//     x        float32 [N, channels, H, W]
//     codes    uint8   [outputs, kernel_h, kernel_w, ceil(channels / group / 4)]    initialisers: 2 bits per weight, as
//     values   float32 [2]                    in ternary_gemm/format.h, and what the codes 1 and 2 stand for
//     scale    float32 [1] or [outputs]
//     bias     float32 [outputs], optional
//     y        float32 [N, outputs, H', W']
// Attributes, lists of integers named and ordered as those of Conv: kernel_shape, strides, dilations, pads;
// channels [1]; group [1].
#pragma once

#include "ternary_conv/geometry.h"
#include "ternary_gemm/operator.h"

namespace gossamer::ternary {

class TernaryConv {
 public:
  static constexpr const char* name = "TernaryConv";
  static constexpr const auto& inputs = kPorts;
  static constexpr ort::Port outputs[] = {{"y", ort::Element::float32, ort::Presence::required}};

  explicit TernaryConv(const ort::Creation& creation);
  void compute(const ort::Call& call) const;

 private:
  Kernels kernels_;
  Geometry geometry_;
  std::vector<Weights> groups_;
};

}  // namespace gossamer::ternary
