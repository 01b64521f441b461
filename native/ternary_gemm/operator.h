// TernaryGemm (domain ai.gossamer, version 1): y[..., o] = scale[o] sum_i w[o, i] x[..., i] + bias[o].
//
//     x        float32 [..., inputs]
//     codes    uint8   [outputs, ceil(inputs / 4)]    initialisers: 2 bits per weight as in format.h,
//     values   float32 [2]                            and what the codes 1 and 2 stand for
//     scale    float32 [1] or [outputs]
//     bias     float32 [outputs], optional
//     y        float32 [..., outputs]
// Attribute: inputs [1], a list of one integer.
#pragma once

#include "ort/kernel.h"
#include "ternary_gemm/kernels.h"
#include "ternary_gemm/product.h"

namespace gossamer::ternary {

// What TernaryGemm and TernaryConv take after x.
inline constexpr ort::Port kPorts[] = {
    {"x", ort::Element::float32, ort::Presence::required},
    {"codes", ort::Element::uint8, ort::Presence::required},
    {"values", ort::Element::float32, ort::Presence::required},
    {"scale", ort::Element::float32, ort::Presence::required},
    {"bias", ort::Element::float32, ort::Presence::optional},
};

// The weights of the outputs [from, from + outputs) among `all` of an operator.
Weights weights_of(const ort::Creation& creation, const Layout& layout, int64_t from, int64_t outputs, int64_t all,
                   int64_t taps, int64_t channels);
// scale and bias of a call, each checked; they live as long as the call.
Finish finish_of(const ort::Call& call, int64_t outputs, int64_t step);

class TernaryGemm {
 public:
  static constexpr const char* name = "TernaryGemm";
  static constexpr const auto& inputs = kPorts;
  static constexpr ort::Port outputs[] = {{"y", ort::Element::float32, ort::Presence::required}};

  explicit TernaryGemm(const ort::Creation& creation);
  void compute(const ort::Call& call) const;

 private:
  Kernels kernels_;
  Weights weights_;
};

}  // namespace gossamer::ternary
