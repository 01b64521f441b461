// Three operators around the convolutions (domain ai.gossamer, version 1), which make bits, pool them and read them.
// Bits are uint8 [N, H, W, 8 ceil(channels / 64)] or [..., 8 ceil(channels / 64)], as layer.h has them.
//
//     BinarySign      x float32 [N, channels, H, W], or [..., channels] with product [1] of 1  ->  bits of its signs
//     BinaryMaxPool   bits of an image  ->  bits: the largest sign of each window, where the window reaches into the image;
//                     `flips`, uint8 [8 ceil(channels / 64)], an initialiser, turns channels over afterwards (for channels
//                     that hold a sign turned over: there the window gives the smallest)
//                     kernel_shape, strides, pads: as those of MaxPool
//     BinaryFloats    bits  ->  float32 [N, channels, H, W], or [..., channels] with product [1] of 1; channels [1]
#pragma once

#include "binary_conv/kernels.h"
#include "ort/kernel.h"

namespace gossamer::binary {

class BinarySign {
 public:
  static constexpr const char* name = "BinarySign";
  static constexpr ort::Port inputs[] = {{"x", ort::Element::float32, ort::Presence::required}};
  static constexpr ort::Port outputs[] = {{"y", ort::Element::uint8, ort::Presence::required}};

  explicit BinarySign(const ort::Creation& creation);
  void compute(const ort::Call& call) const;

 private:
  bool product_;
};

class BinaryMaxPool {
 public:
  static constexpr const char* name = "BinaryMaxPool";
  static constexpr ort::Port inputs[] = {
      {"x", ort::Element::uint8, ort::Presence::required},
      {"flips", ort::Element::uint8, ort::Presence::required},
  };
  static constexpr ort::Port outputs[] = {{"y", ort::Element::uint8, ort::Presence::required}};

  explicit BinaryMaxPool(const ort::Creation& creation);
  void compute(const ort::Call& call) const;

 private:
  Geometry geometry_;
  std::vector<uint64_t> flips_;
};

class BinaryFloats {
 public:
  static constexpr const char* name = "BinaryFloats";
  static constexpr ort::Port inputs[] = {{"x", ort::Element::uint8, ort::Presence::required}};
  static constexpr ort::Port outputs[] = {{"y", ort::Element::float32, ort::Presence::required}};

  explicit BinaryFloats(const ort::Creation& creation);
  void compute(const ort::Call& call) const;

 private:
  bool product_;
  int64_t channels_;
};

}  // namespace gossamer::binary
