// The same weights row by row: sixteen rows in lock-step, a slice. For inputs without zeros, and for many samples.
//
// Step k of a slice is sixteen bytes, byte l the k-th of its row l; the column moves as the row does in format.h, so one
// vertical addition moves all sixteen. Rows of like length share a slice; shorter ones end in long runs, and whatever
// points beyond the last column is never read: a long run has value 0 and reads column `columns` (a zero), or none.
// The idea is that of sliced ELLPACK: Monakov, Lokhmotov, Avetisyan, HiPEAC 2010, doi:10.1007/978-3-642-11515-8_10.
#pragma once

#include "sparse_gemv/format.h"

namespace gossamer::sparse {

constexpr int kLanes = 16, kBatch = 16, kFew = 4;  // rows of a slice; samples of one pass, and of a small one

struct Slice {
  const uint8_t* bytes;  // [steps, kLanes]
  int64_t steps;
};

struct Rows {
  int64_t columns;
  std::vector<uint8_t> bytes;
  std::vector<size_t> first;   // [slices + 1]: the step with which each slice begins
  std::vector<int32_t> owner;  // [slices * kLanes]: the row of each lane within the stream, -1 for none
  int64_t slices() const { return static_cast<int64_t>(first.size()) - 1; }
  Slice slice(int64_t i) const {
    return {bytes.data() + first[i] * kLanes, static_cast<int64_t>(first[i + 1] - first[i])};
  }
};

Rows by_rows(const Matrix& matrix, int64_t stream);

// y [rows of the stream] += the stream's rows times x [columns].
void add_rows(const Rows& rows, const float* codebook, const float* x, float* y);

// y[n * pitch + row] += the rows times sample n < samples; x: [columns + 1, width] in lines of a multiple of 16 bytes, the
// last one zero; width kFew or kBatch.
void add_rows_batch(const Rows& rows, const float* codebook, const float* x, int width, int64_t samples, float* y,
                    int64_t pitch);

// One slice: sums [kLanes], [kLanes, kFew] or [kLanes, kBatch]; the variants agree up to rounding.
using SliceSum = void (*)(Slice slice, const float* codebook, const float* x, int64_t columns, float* sums);
void slice_portable(Slice slice, const float* codebook, const float* x, int64_t columns, float* sums);
void slice_avx2(Slice slice, const float* codebook, const float* x, int64_t columns, float* sums);
void slice_few_portable(Slice slice, const float* codebook, const float* x, int64_t columns, float* sums);
void slice_few_avx2(Slice slice, const float* codebook, const float* x, int64_t columns, float* sums);
void slice_batch_portable(Slice slice, const float* codebook, const float* x, int64_t columns, float* sums);
void slice_batch_neon(Slice slice, const float* codebook, const float* x, int64_t columns, float* sums);
void slice_batch_avx2(Slice slice, const float* codebook, const float* x, int64_t columns, float* sums);
void slice_batch_avx512(Slice slice, const float* codebook, const float* x, int64_t columns, float* sums);

}  // namespace gossamer::sparse
