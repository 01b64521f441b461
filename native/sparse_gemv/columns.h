// One sample, column by column: inputs that are zero cost nothing.
//
// For each input x_j != 0 a table holds the product of every byte, t[byte] = codebook[code] x_j or 0 for a long run, so a
// byte costs two look-ups and one addition in memory, without a branch or a multiplication:
//     row += step[byte];   y[row] += t[byte]
// The sums of a stream stay in the first cache; the bytes of a later column are asked for ahead of time.
#pragma once

#include "sparse_gemv/format.h"

namespace gossamer::sparse {

struct Active {
  int32_t column;
  float value;
};

// The inputs that are not zero; `active` has room for all of them. Returns how many there are.
inline int64_t find_active(const float* x, int64_t columns, Active* active) {
  int64_t count = 0;
  for (int64_t j = 0; j < columns; ++j) {
    active[count] = {static_cast<int32_t>(j), x[j]};
    count += x[j] != 0.0f;
  }
  return count;
}

// y [rows of the stream] += the stream's rows times the active inputs.
void add_columns(const Matrix& matrix, int64_t stream, const Active* active, int64_t count, float* y);

}  // namespace gossamer::sparse
