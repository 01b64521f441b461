// BinaryConv and BinaryConvSign (domain ai.gossamer, version 1): the convolution of format.h. x, filters and attributes are
// described in layer.h.
//
//     BinaryConv       scale, offset  float32 [outputs], initialisers    y  float32 [N, outputs, H', W'], or [..., outputs]
//     BinaryConvSign   thresholds     int32 [outputs], an initialiser    y  uint8, bits: [N, H', W', 8 ceil(outputs / 64)],
//                                                                           or [..., 8 ceil(outputs / 64)]
#pragma once

#include "binary_conv/layer.h"

namespace gossamer::binary {

class BinaryConv {
 public:
  static constexpr const char* name = "BinaryConv";
  static constexpr ort::Port inputs[] = {
      {"x", ort::Element::any, ort::Presence::required},
      {"filters", ort::Element::uint8, ort::Presence::required},
      {"scale", ort::Element::float32, ort::Presence::required},
      {"offset", ort::Element::float32, ort::Presence::required},
  };
  static constexpr ort::Port outputs[] = {{"y", ort::Element::float32, ort::Presence::required}};

  explicit BinaryConv(const ort::Creation& creation);
  void compute(const ort::Call& call) const;

 private:
  Layer layer_;
  std::vector<float> scale_, offset_;
};

class BinaryConvSign {
 public:
  static constexpr const char* name = "BinaryConvSign";
  static constexpr ort::Port inputs[] = {
      {"x", ort::Element::any, ort::Presence::required},
      {"filters", ort::Element::uint8, ort::Presence::required},
      {"thresholds", ort::Element::int32, ort::Presence::required},
  };
  static constexpr ort::Port outputs[] = {{"y", ort::Element::uint8, ort::Presence::required}};

  explicit BinaryConvSign(const ort::Creation& creation);
  void compute(const ort::Call& call) const;

 private:
  Layer layer_;
  std::vector<int32_t> thresholds_;  // of all blocks: what lies beyond the last output is never below
};

}  // namespace gossamer::binary
