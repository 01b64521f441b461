#include "sparse_gemv/rows.h"

#include <algorithm>
#include <numeric>

#include "cpu.h"
#include "sparse_gemv/reference.h"

namespace gossamer::sparse {
namespace {

constexpr uint8_t kPadding = kLongRun << 4;

SliceSum single() {
#ifdef GOSSAMER_X86
  if (isa() >= Isa::avx2) return slice_avx2;
#endif
  return slice_portable;
}

SliceSum few() {
#ifdef GOSSAMER_X86
  if (isa() >= Isa::avx2) return slice_few_avx2;
#endif
  return slice_few_portable;
}

SliceSum batch() {
#ifdef GOSSAMER_X86
  if (isa() >= Isa::avx2) return isa() == Isa::avx512 ? slice_batch_avx512 : slice_batch_avx2;
#endif
#ifdef GOSSAMER_NEON
  if (isa() == Isa::neon) return slice_batch_neon;
#endif
  return slice_batch_portable;
}

}  // namespace

Rows by_rows(const Matrix& matrix, int64_t stream) {
  const int64_t start = matrix.starts[stream], owned = matrix.starts[stream + 1] - start;
  std::vector<uint32_t> length(static_cast<size_t>(owned), 0);
  std::vector<int32_t> last(static_cast<size_t>(owned), -1);
  const auto walk = [&](auto write) {  // write(row, byte) for every byte of every row
    std::fill(last.begin(), last.end(), -1);
    each_entry(matrix, stream, [&](int64_t i, int64_t j, unsigned code) {
      const auto row = static_cast<size_t>(i - start);
      put_entry(j - last[row] - 1, code, [&](uint8_t byte) { write(row, byte); });
      last[row] = static_cast<int32_t>(j);
    });
  };
  walk([&](size_t row, uint8_t) { ++length[row]; });

  std::vector<int32_t> order(static_cast<size_t>(owned));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return length[a] > length[b]; });
  Rows rows{matrix.columns, {}, {0}, {}};
  std::vector<size_t> next(static_cast<size_t>(owned));  // where a row's next byte goes
  for (int64_t base = 0; base < owned; base += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      const bool filled = base + lane < owned;
      rows.owner.push_back(filled ? order[base + lane] : -1);
      if (filled) next[order[base + lane]] = rows.first.back() * kLanes + lane;
    }
    rows.first.push_back(rows.first.back() + length[order[base]]);
  }
  rows.bytes.assign(rows.first.back() * kLanes, kPadding);
  walk([&](size_t row, uint8_t byte) {
    rows.bytes[next[row]] = byte;
    next[row] += kLanes;
  });
  return rows;
}

void add_rows(const Rows& rows, const float* codebook, const float* x, float* y) {
  const SliceSum sum = single();
  alignas(64) float sums[kLanes];
  for (int64_t i = 0; i < rows.slices(); ++i) {
    sum(rows.slice(i), codebook, x, rows.columns, sums);
    for (int lane = 0; lane < kLanes; ++lane) {
      const int32_t row = rows.owner[i * kLanes + lane];
      if (row >= 0) y[row] += sums[lane];
    }
  }
}

void add_rows_batch(const Rows& rows, const float* codebook, const float* x, int width, int64_t samples, float* y,
                    int64_t pitch) {
  const SliceSum sum = width == kFew ? few() : batch();
  alignas(64) float sums[kLanes * kBatch];
  for (int64_t i = 0; i < rows.slices(); ++i) {
    sum(rows.slice(i), codebook, x, rows.columns, sums);
    for (int lane = 0; lane < kLanes; ++lane) {
      const int32_t row = rows.owner[i * kLanes + lane];
      for (int64_t n = 0; row >= 0 && n < samples; ++n) y[n * pitch + row] += sums[lane * width + n];
    }
  }
}

}  // namespace gossamer::sparse
