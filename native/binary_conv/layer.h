// What BinaryConv and BinaryConvSign share: inputs of floats or bits, shapes, and the tasks of the threads.
//
//     x        float32 [N, channels, H, W], or [..., channels] of a product
//              uint8, bits: [N, H, W, 8 ceil(channels / 64)], or [..., 8 ceil(channels / 64)] of a product
//     filters  uint8 [outputs, kernel_h, kernel_w, ceil(channels / group / 8)], an initialiser: bits, 1 for -1
// Attributes, lists of integers named and ordered as those of Conv: kernel_shape, strides, dilations, pads; channels [1];
// group [1]; pad_value [1], 0 or 1; product [1]: 1 for a matrix, of one tap, without padding and groups; flatten [1]: 1 takes
// an image of bits as a row of H W taps, as Flatten and Gemm do after a convolution, and gives [N, outputs].
#pragma once

#include "binary_conv/conv.h"
#include "ort/kernel.h"

namespace gossamer::binary {

bool flag(const ort::Creation& creation, const char* name);  // an attribute of one number, 0 or 1

class Layer {
 public:
  Layer(const ort::Creation& creation, const ort::Port* inputs);

  const Filters& filters() const { return filters_; }
  bool flatten() const { return flatten_; }

  // One call: the shape of x, seen as `images` images.
  struct Shape {
    bool bits, product;  // x holds bits; y has its channels last
    int64_t images, h, w;
    std::vector<int64_t> dims;  // of x
  };
  Shape shape(const ort::Tensor& x) const;

  // finish(image, block, from, count, v) for every block of every task's pixels, from several threads; `apart`: those of one
  // pixel may come from several threads.
  template <class Finish>
  void run(const ort::Call& call, const ort::Tensor& x, const Shape& shape, const Frame& frame, bool apart,
           const Finish& finish) const {
    const Geometry& g = filters_.geometry;
    const Kernels kernels = binary::kernels();
    const int64_t words = shape.h * shape.w * g.channel_words();
    const auto room = [](bool wanted, int64_t count) {
      return std::unique_ptr<uint64_t[]>(wanted ? new uint64_t[static_cast<size_t>(count)] : nullptr);
    };
    const auto packed = room(!shape.bits, words), arranged = room(frame.arranged(), frame.words);
    const int64_t strips = (frame.pixels() + kTask - 1) / kTask;
    // a task of less than some ten microseconds is not worth a thread
    const int64_t work = std::max<int64_t>(1, std::min(kTask, frame.pixels()) * g.words());  // of a block
    const int64_t together = apart && strips < 8 ? std::clamp<int64_t>(kLeastWork / work, 1, filters_.blocks) : filters_.blocks;
    const int64_t parts = (filters_.blocks + together - 1) / together;
    for (int64_t n = 0; n < shape.images; ++n) {
      const uint64_t* signs = packed.get();
      if (shape.bits) {
        signs = x.as<uint64_t>() + n * words;
      } else if (shape.product) {
        kernels.pack_rows(x.as<float>(), shape.w, g.channels, packed.get());
      } else {
        kernels.pack(x.as<float>() + n * g.channels * shape.h * shape.w, g.channels, shape.h * shape.w, packed.get());
      }
      if (arranged) {
        frame.arrange(signs, arranged.get());
        signs = arranged.get();
      }
      call.parallel(strips * parts, [&](int64_t task) {
        const int64_t from = task / parts * kTask, count = std::min(kTask, frame.pixels() - from);
        const int64_t first = task % parts * together, last = std::min(first + together, filters_.blocks);
        run_task(filters_, kernels, frame, signs, from, from + count, first, last,
                 [&](int64_t block, const int32_t* v) { finish(n, block, from, count, v); });
      });
    }
  }

 private:
  static constexpr int64_t kLeastWork = 1 << 14;  // words times pixels

  bool product_, flatten_;
  Filters filters_;
};

}  // namespace gossamer::binary
