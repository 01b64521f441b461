// The loop that takes the time, per variant; all give the same integers.
#pragma once

#include "ternary_int8/format.h"

namespace gossamer::ternary_int8 {

constexpr int kPoints = 8;  // rows of inputs that share one reading of the weights

// sums [points, kOutputs] = sum x u of one block, of which `block` is the first byte, and the rows x.
using Tile = void (*)(const uint8_t* block, int64_t steps, const uint8_t* const* x, int32_t* sums);

// The sum of `count` bytes, a multiple of kInputs.
using Total = int32_t (*)(const uint8_t* row, int64_t count);

struct Kernels {
  Tile tile[kPoints];  // [points - 1]
  Total total;
};
Kernels kernels();  // of the variant that runs now
Kernels avx2();
int32_t total_avx2(const uint8_t* row, int64_t count);
Kernels vnni();  // AVX-512 with its instruction for products of 8 bits

}  // namespace gossamer::ternary_int8
