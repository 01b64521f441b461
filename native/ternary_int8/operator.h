// TernaryGemmInt8 and TernaryConvInt8 (domain ai.gossamer, version 1): y = scale[o] sum (x - z) t + bias[o], the integers
// exact.
//
//     x        uint8 or int8   [..., inputs], or [N, channels, H, W]
//     codes    uint8   [outputs, ceil(inputs / 4)], or [outputs, kernel_h, kernel_w, ceil(channels / group / 4)]: 2 bits per
//                      weight as in ternary_gemm/codes.h, for 0, -1 and 1; an initialiser
//     scale    float32 [1] or [outputs]    that of x times that of the weights
//     bias     float32 [outputs], optional
//     y        float32 [..., outputs], or [N, outputs, H', W']
// Attributes, lists of integers: zero_point [1], that of x as 8 unsigned bits (an int8 one plus 128); inputs [1] of a product;
// those of TernaryConv of a convolution. Outside the image lies the zero point.
#pragma once

#include "ort/kernel.h"
#include "ternary_int8/product.h"

namespace gossamer::ternary_int8 {

inline constexpr ort::Port kPorts[] = {
    {"x", ort::Element::any, ort::Presence::required},
    {"codes", ort::Element::uint8, ort::Presence::required},
    {"scale", ort::Element::float32, ort::Presence::required},
    {"bias", ort::Element::float32, ort::Presence::optional},
};
inline constexpr ort::Port kOutput[] = {{"y", ort::Element::float32, ort::Presence::required}};

class TernaryGemmInt8 {
 public:
  static constexpr const char* name = "TernaryGemmInt8";
  static constexpr const auto& inputs = kPorts;
  static constexpr const auto& outputs = kOutput;

  explicit TernaryGemmInt8(const ort::Creation& creation);
  void compute(const ort::Call& call) const;

 private:
  int32_t zero_point_;
  Weights weights_;
};

class TernaryConvInt8 {
 public:
  static constexpr const char* name = "TernaryConvInt8";
  static constexpr const auto& inputs = kPorts;
  static constexpr const auto& outputs = kOutput;

  explicit TernaryConvInt8(const ort::Creation& creation);
  void compute(const ort::Call& call) const;

 private:
  int32_t zero_point_;
  Convolution geometry_;
  std::vector<Weights> groups_;
};

}  // namespace gossamer::ternary_int8
