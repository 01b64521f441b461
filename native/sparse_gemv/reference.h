// The definition, in plain loops and doubles: y[n, i] = bias[i] + sum_j W[i, j] x[n, j].
#pragma once

#include "sparse_gemv/format.h"

namespace gossamer::sparse {

// work(row, column, code) for every entry, column by column.
template <class Work>
void each_entry(const Matrix& matrix, int64_t stream, Work work) {
  for (int64_t j = 0; j < matrix.columns; ++j) {
    int64_t row = matrix.starts[stream] - 1;
    for (const uint8_t *at = matrix.begin(stream, j), *end = matrix.end(stream, j); at < end; ++at) {
      row += step_of(*at);
      if (is_entry(*at)) work(row, j, *at & 15u);
    }
  }
}

inline void reference_gemm(const Matrix& matrix, const float* x, int64_t samples, const float* bias, double* y) {
  for (int64_t n = 0; n < samples; ++n) {
    for (int64_t i = 0; i < matrix.rows; ++i) y[n * matrix.rows + i] = bias ? bias[i] : 0.0;
    for (int64_t s = 0; s < matrix.streams; ++s) {
      each_entry(matrix, s, [&](int64_t i, int64_t j, unsigned code) {
        y[n * matrix.rows + i] += static_cast<double>(matrix.codebook[code]) * x[n * matrix.columns + j];
      });
    }
  }
}

}  // namespace gossamer::sparse
