// Plain loops over one row after the other, without a branch that depends on the weights; the compiler turns the inner
// loop over samples into vectors.
#include "sparse_gemv/rows.h"

namespace gossamer::sparse {
namespace {

// work(column, value) for every byte of one lane; a long run has value 0 and column `idle`.
template <class Work>
inline void each_of(Slice slice, int lane, const float* codebook, int64_t idle, Work work) {
  float values[256] = {};
  for (int byte = 0; byte < kLongRun * kCodes; ++byte) values[byte] = codebook[byte % kCodes];
  int64_t column = -1;
  for (int64_t k = 0; k < slice.steps; ++k) {
    const unsigned byte = slice.bytes[k * kLanes + lane];
    column += kSteps.of[byte];
    work(is_entry(byte) ? column : idle, values[byte]);
  }
}

template <int width>
void sum_slice(Slice slice, const float* codebook, const float* x, int64_t columns, float* sums) {
  for (int lane = 0; lane < kLanes; ++lane) {
    float sum[width] = {};
    each_of(slice, lane, codebook, columns, [&](int64_t j, float value) {
      const float* samples = x + j * width;
      for (int n = 0; n < width; ++n) sum[n] += value * samples[n];
    });
    for (int n = 0; n < width; ++n) sums[lane * width + n] = sum[n];
  }
}

}  // namespace

void slice_portable(Slice slice, const float* codebook, const float* x, int64_t, float* sums) {
  for (int lane = 0; lane < kLanes; ++lane) {
    float sum = 0;
    each_of(slice, lane, codebook, 0, [&](int64_t j, float value) { sum += value == 0 ? 0 : value * x[j]; });
    sums[lane] = sum;
  }
}

void slice_few_portable(Slice slice, const float* codebook, const float* x, int64_t columns, float* sums) {
  sum_slice<kFew>(slice, codebook, x, columns, sums);
}

void slice_batch_portable(Slice slice, const float* codebook, const float* x, int64_t columns, float* sums) {
  sum_slice<kBatch>(slice, codebook, x, columns, sums);
}

}  // namespace gossamer::sparse
