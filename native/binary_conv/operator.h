// BinaryConv (domain ai.gossamer, version 1): the convolution of format.h on floats, of which only the signs count.
//
//     x        float32 [N, channels, H, W]; with a kernel of one tap and no padding also [..., channels], a product
//     filters  uint8 [outputs, kernel_h, kernel_w, ceil(channels / 8)], an initialiser: bits, 1 for -1
//     scale, offset   float32 [outputs]
//     y        float32 [N, outputs, H', W'], or [..., outputs]
// Attributes, lists of integers named and ordered as those of Conv: kernel_shape, strides, dilations, pads; channels [1];
// pad_value [1], 0 or 1.
#pragma once

#include "binary_conv/conv.h"
#include "ort/kernel.h"

namespace gossamer::binary {

class BinaryConv {
 public:
  static constexpr const char* name = "BinaryConv";
  static constexpr ort::Port inputs[] = {
      {"x", ort::Element::float32, ort::Presence::required},
      {"filters", ort::Element::uint8, ort::Presence::required},
      {"scale", ort::Element::float32, ort::Presence::required},
      {"offset", ort::Element::float32, ort::Presence::required},
  };
  static constexpr ort::Port outputs[] = {{"y", ort::Element::float32, ort::Presence::required}};

  explicit BinaryConv(const ort::Creation& creation);
  void compute(const ort::Call& call) const;

 private:
  Filters filters_;
};

}  // namespace gossamer::binary
