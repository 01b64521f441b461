#include "sparse_gemv/operator.h"

#include <algorithm>
#include <memory>

#include "cpu.h"

namespace gossamer::sparse {
namespace {

// Nanoseconds on an x86 of 2022: of a byte in column order (and of a column that is not skipped), of a byte in row
// order, and of a byte in row order for a pass of up to kFew and of up to kBatch samples. Only their ratios matter.
struct Costs {
  double column_byte, column, row_byte, few_byte, batch_byte;
};

Costs costs() {
  if (isa() == Isa::avx512) return {0.60, 15, 0.42, 0.57, 1.0};
  if (isa() == Isa::avx2) return {0.60, 20, 0.42, 0.57, 1.6};
  if (isa() == Isa::neon) return {0.65, 40, 3.5, 2.3, 3.2};  // not measured: portable, but a batch as two of AVX2
  return {0.65, 40, 3.5, 2.3, 7.0};
}

Matrix matrix_of(const ort::Creation& creation) {
  const auto get = [&](size_t index) { return creation.constant(SparseGemm::inputs, index); };
  const ort::Tensor bytes = get(1), counts = get(2), starts = get(3), codebook = get(4);
  return checked(bytes.as<uint8_t>(), bytes.size(), counts.as<uint16_t>(), counts.size(), starts.as<int64_t>(),
                 starts.size(), codebook.as<float>(), codebook.size());
}

// x [samples, columns] as lines of `width` samples, [columns + 1, width]; the last line is zero.
void transpose(const float* x, int64_t samples, int64_t columns, int64_t width, float* lines) {
  for (int64_t j = 0; j < columns; ++j)
    for (int64_t n = 0; n < width; ++n) lines[j * width + n] = n < samples ? x[n * columns + j] : 0.0f;
  std::fill(lines + columns * width, lines + (columns + 1) * width, 0.0f);
}

struct Aligned {
  explicit Aligned(int64_t count)
      : memory(new float[static_cast<size_t>(count) + 16]),
        data(reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(memory.get()) + 63) / 64 * 64)) {}
  std::unique_ptr<float[]> memory;
  float* data;
};

}  // namespace

SparseGemm::SparseGemm(const ort::Creation& creation) : matrix_(matrix_of(creation)) {}

const std::vector<Rows>& SparseGemm::rows() const {
  std::call_once(once_, [&] {
    std::vector<Rows> made;
    for (int64_t s = 0; s < matrix_.streams; ++s) made.push_back(by_rows(matrix_, s));
    rows_ = std::move(made);
  });
  return rows_;
}

void SparseGemm::compute(const ort::Call& call) const {
  const ort::Tensor x = call.input(inputs, 0);
  const int64_t columns = matrix_.columns, height = matrix_.rows;
  if (x.dims.empty() || x.dims.back() != columns) {
    throw std::invalid_argument("input 'x' has " + std::to_string(x.dims.empty() ? 0 : x.dims.back()) +
                                " elements on its last axis, expected " + std::to_string(columns));
  }
  std::vector<int64_t> dims = x.dims;
  dims.back() = height;
  int64_t samples = 1;
  for (size_t axis = 0; axis + 1 < dims.size(); ++axis) samples *= dims[axis];
  float* y = call.output(0, dims);
  if (call.has(5)) {
    const ort::Tensor bias = call.input(inputs, 5);
    if (bias.size() != height) {
      throw std::invalid_argument("input 'bias' has " + std::to_string(bias.size()) + " elements, expected " +
                                  std::to_string(height));
    }
    for (int64_t n = 0; n < samples; ++n) std::copy_n(bias.as<float>(), height, y + n * height);
  } else {
    std::fill_n(y, samples * height, 0.0f);
  }
  const float* from = x.as<float>();
  std::unique_ptr<Active[]> active(new Active[static_cast<size_t>(columns)]);
  std::unique_ptr<Aligned> lines;
  const Costs cost = costs();
  const double bytes = static_cast<double>(matrix_.size()), by_row = cost.row_byte * bytes;
  for (int64_t n = 0; n < samples;) {
    const int64_t left = samples - n, few = std::min<int64_t>(kFew, left), many = std::min<int64_t>(kBatch, left);
    const int64_t found = find_active(from + n * columns, columns, active.get());
    const double share = columns ? static_cast<double>(found) / static_cast<double>(columns) : 0;
    // of one sample
    const double by_column = share * (cost.column_byte * bytes + cost.column * static_cast<double>(columns * matrix_.streams));
    const double by_few = cost.few_byte * bytes / static_cast<double>(few);
    const double by_many = cost.batch_byte * bytes / static_cast<double>(many);
    float* to = y + n * height;
    if (left > 1 && std::min(by_few, by_many) < std::min(by_column, by_row)) {
      const auto& all = rows();
      const int width = by_few <= by_many ? kFew : kBatch;
      const int64_t group = std::min<int64_t>(width, left);
      if (!lines) lines = std::make_unique<Aligned>((columns + 1) * kBatch);
      transpose(from + n * columns, group, columns, width, lines->data);
      call.parallel(matrix_.streams, [&](int64_t s) {
        add_rows_batch(all[s], matrix_.codebook, lines->data, width, group, to + matrix_.starts[s], height);
      });
      n += group;
    } else if (by_column <= by_row) {
      call.parallel(matrix_.streams,
                    [&](int64_t s) { add_columns(matrix_, s, active.get(), found, to + matrix_.starts[s]); });
      ++n;
    } else {
      const auto& all = rows();
      call.parallel(matrix_.streams, [&](int64_t s) {
        add_rows(all[s], matrix_.codebook, from + n * columns, to + matrix_.starts[s]);
      });
      ++n;
    }
  }
}

}  // namespace gossamer::sparse
