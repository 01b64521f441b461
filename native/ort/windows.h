// The attributes of a convolution, lists of integers named and ordered as those of Conv.
#pragma once

#include "ort/kernel.h"
#include "windows.h"

namespace gossamer::ort {

inline void read(const Creation& creation, Windows& windows) {
  creation.read("kernel_shape", windows.kernel, 2);
  creation.read("strides", windows.stride, 2);
  creation.read("dilations", windows.dilation, 2);
  creation.read("pads", windows.pad, 4);
}

inline void read(const Creation& creation, Convolution& convolution) {
  creation.read("channels", &convolution.channels, 1);
  creation.read("group", &convolution.groups, 1);
  read(creation, static_cast<Windows&>(convolution));
}

}  // namespace gossamer::ort
