// The loops that take the time, per variant. All variants give the same integers and the same floats.
#pragma once

#include "binary_conv/format.h"

namespace gossamer::binary {

// v [count, kOutputs] = all - 2 (bits in which the patch of each pixel differs from each filter of a block). Word k of the
// patch of pixel p is pixels[p][steps[k]]. tile[count - 1] takes count pixels.
using Tile = void (*)(const uint64_t* const* pixels, const int64_t* steps, int64_t words, const uint64_t* filters,
                      int32_t all, int32_t* v);

// y[o * step_o + p * step_p] = scale[o] v[p, o] + offset[o], rounded once, for the first `outputs` of a block.
struct Floats {
  const float *scale, *offset;
  int64_t outputs, step_o, step_p;
};
using Finish = void (*)(const int32_t* v, int64_t count, const Floats& how, float* y);

// Bits of v[p, o] < threshold[o], two bytes for each pixel, `step` bytes apart.
using Compare = void (*)(const int32_t* v, int64_t count, const int32_t* thresholds, uint8_t* bits, int64_t step);

// Signs of x [channels, pixels] as words [pixels, channel_words].
using Pack = void (*)(const float* x, int64_t channels, int64_t pixels, uint64_t* words);
// Signs of x [rows, channels] as words [rows, channel_words].
using PackRows = void (*)(const float* x, int64_t rows, int64_t channels, uint64_t* words);

struct Kernels {
  Tile tile[kPixels];
  Finish finish;
  Compare compare;
  Pack pack;
  PackRows pack_rows;
};
Kernels kernels();  // of the variant that runs
Kernels neon_kernels();
Kernels avx2_kernels();
Kernels avx512_kernels();

bool has_popcount512();  // AVX-512 with VPOPCNTDQ, and not capped below

}  // namespace gossamer::binary
