// The two loops that take the time, per variant; the variants agree up to rounding.
#pragma once

#include "ternary_gemm/format.h"

namespace gossamer::ternary {

constexpr int kPoints = 2;      // rows of inputs (samples, pixels) that share one reading of the weights
constexpr int kBlockSizes = 3;  // 1, 2 or 4 blocks together share one reading of a table
constexpr int kTogether = 1 << (kBlockSizes - 1);

// `count` tables, `size` floats from one to the next: the n-th of the inputs x[n * apart + j * step], j < kInputs.
using Fill = void (*)(const Weights& weights, const float* x, int64_t step, int64_t count, int64_t apart, float* tables,
                      int64_t size);

// sums [points, blocks, lanes] = blocks from `words` on times the points whose tables are at [taps, points].
using Tile = void (*)(const Weights& weights, const uint32_t* words, const float* const* at, float* sums);

struct Kernels {
  Layout layout;
  Fill fill;
  Tile tile[kBlockSizes][kPoints];  // [log2 blocks][points - 1]
};
Kernels portable();
Kernels neon();
Kernels avx2();
Kernels avx512();
Kernels kernels();  // of the variant that runs now

}  // namespace gossamer::ternary
