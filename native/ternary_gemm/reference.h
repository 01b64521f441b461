// The definition, in plain loops and doubles, on the codes as they are given: products [outputs] of one row of inputs.
#pragma once

#include <vector>

#include "ternary_gemm/format.h"

namespace gossamer::ternary {

inline double weight_at(const uint8_t* codes, int64_t row_bytes, const float* values, int64_t row, int64_t c) {
  const unsigned code = codes[row * row_bytes + c / 4] >> 2 * (c % 4) & 3u;
  return code ? values[code - 1] : 0.0;
}

inline std::vector<double> reference_product(const uint8_t* codes, int64_t outputs, int64_t inputs, const float* values,
                                             const float* x) {
  std::vector<double> y;
  for (int64_t o = 0; o < outputs; ++o) {
    double sum = 0;
    for (int64_t i = 0; i < inputs; ++i) sum += weight_at(codes, up(inputs, 4), values, o, i) * x[i];
    y.push_back(sum);
  }
  return y;
}

}  // namespace gossamer::ternary
