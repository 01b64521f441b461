// From the kernels: the tables of several points, and the products of one or two with a range of blocks.
#pragma once

#include <algorithm>

#include "ternary_gemm/kernels.h"

namespace gossamer::ternary {

constexpr int64_t kAtOnce = 8;  // points filled side by side: less strains the reading of inputs, more the writing

// The tables of `points` points, [points, weights.tables(), entries]; point p has the inputs x[c * step + p * apart].
// Pixels are filled table by table, for the inputs of neighbours lie side by side and those of one pixel far apart.
inline void fill_points(const Weights& weights, const Kernels& run, const float* x, int64_t step, int64_t points,
                        int64_t apart, float* tables) {
  const int64_t size = weights.table_floats(), entries = weights.layout.entries;
  const int64_t whole = weights.channels / kInputs, left = weights.channels % kInputs;
  if (points == 1) run.fill(weights, x, step, whole, kInputs * step, tables, entries);
  for (int64_t base = 0; points > 1 && base < points; base += kAtOnce)
    for (int64_t table = 0; table < whole; ++table)
      run.fill(weights, x + table * kInputs * step + base * apart, step, std::min(kAtOnce, points - base), apart,
               tables + base * size + table * entries, size);
  for (int64_t p = 0; left && p < points; ++p) {
    float three[kInputs] = {};
    for (int64_t j = 0; j < left; ++j) three[j] = x[(whole * kInputs + j) * step + p * apart];
    run.fill(weights, three, 1, 1, 0, tables + p * size + whole * entries, entries);
  }
}

// y[o * step] = scale[o] sum[o] + bias[o]
struct Finish {
  const float* scale;  // of all outputs, or of each
  bool each;
  const float* bias;  // or null
  int64_t step;

  Finish from(int64_t output) const {
    return {each ? scale + output : scale, each, bias ? bias + output : nullptr, step};
  }
};

// Blocks [first, last) for the points whose tables are at [taps, points]; point p writes to y[p], where output 0 goes.
inline void multiply(const Weights& weights, const Kernels& run, int64_t first, int64_t last, const float* const* at,
                     int points, const Finish& finish, float* const* y) {
  alignas(64) float sums[kPoints * kTogether * kMaxLanes];
  const int64_t lanes = weights.layout.lanes;
  for (int64_t block = first; block < last;) {
    int size = kBlockSizes - 1;
    while (last - block < 1 << size) --size;
    const int64_t blocks = int64_t{1} << size;
    run.tile[size][points - 1](weights, weights.block(block), at, sums);
    const int64_t from = block * lanes, count = std::min(blocks * lanes, weights.outputs - from);
    const Finish rest = finish.from(from);
    for (int p = 0; p < points; ++p) {
      const float* sum = sums + p * blocks * lanes;
      float* to = y[p] + from * rest.step;
      for (int64_t o = 0; o < count; ++o)
        to[o * rest.step] = rest.scale[rest.each ? o : 0] * sum[o] + (rest.bias ? rest.bias[o] : 0.0f);
    }
    block += blocks;
  }
}

}  // namespace gossamer::ternary
