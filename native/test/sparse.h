// Sparse products: every kernel and variant against double precision, and fields that no packer wrote.
#pragma once

#include <algorithm>
#include <cmath>

#include "sparse_gemv/columns.h"
#include "sparse_gemv/reference.h"
#include "sparse_gemv/rows.h"
#include "test/check.h"

namespace gossamer::test {

// Packed fields that keep their memory.
struct Packed {
  std::vector<uint8_t> bytes;
  std::vector<uint16_t> counts;
  std::vector<int64_t> starts;
  std::vector<float> codebook;
  sparse::Matrix matrix() const {
    return sparse::checked(bytes.data(), static_cast<int64_t>(bytes.size()), counts.data(),
                           static_cast<int64_t>(counts.size()), starts.data(), static_cast<int64_t>(starts.size()),
                           codebook.data(), static_cast<int64_t>(codebook.size()));
  }
};

inline Packed packed(Random& random, int64_t rows, int64_t columns, double density, int64_t streams, int codes) {
  std::vector<int64_t> positions;
  std::vector<uint8_t> values;
  const bool by_column = random() % 2;
  for (int64_t at = 0; at < rows * columns; ++at) {
    if (static_cast<double>(random() >> 11) * 0x1p-53 >= density) continue;
    positions.push_back(at);
    values.push_back(static_cast<uint8_t>(random() % static_cast<unsigned>(codes)));
  }
  Packed made{{}, std::vector<uint16_t>(static_cast<size_t>(streams * columns)), {}, {}};
  for (int64_t s = 0; s <= streams; ++s) made.starts.push_back(rows * s / streams);
  for (int c = 0; c < codes; ++c) made.codebook.push_back(static_cast<float>(random() % 2001) / 500.0f - 2.0f);
  const auto count = static_cast<int64_t>(positions.size());
  const auto pack = [&](uint8_t* bytes, int64_t size) {
    return gossamer_sparse_pack(positions.data(), values.data(), count, rows, columns, by_column, made.starts.data(),
                                streams, made.counts.data(), bytes, size);
  };
  const int64_t size = pack(nullptr, 0);
  CHECK(size >= count);
  made.bytes.resize(static_cast<size_t>(size));
  CHECK(pack(made.bytes.data(), size) == size);

  std::vector<float> dense(static_cast<size_t>(rows * columns)), wanted(dense.size());  // the packing itself
  for (int64_t e = 0; e < count; ++e) {
    const int64_t at = by_column ? positions[e] % rows * columns + positions[e] / rows : positions[e];
    wanted[at] = made.codebook[values[e]] + 10;
  }
  const auto matrix = made.matrix();
  for (int64_t s = 0; s < streams; ++s)
    sparse::each_entry(matrix, s, [&](int64_t i, int64_t j, unsigned code) {
      dense[i * columns + j] = made.codebook[code] + 10;
    });
  CHECK(dense == wanted);
  return made;
}

inline void all_kernels(const sparse::Matrix& matrix, const std::vector<float>& x, int64_t samples,
                        const std::vector<double>& expected, const std::vector<double>& allowed) {
  const auto near = [&](const std::vector<float>& y, int64_t from) {
    for (size_t i = 0; i < y.size(); ++i) {
      const size_t at = static_cast<size_t>(from) + i;
      if (expected.empty()) continue;  // damaged fields: only the memory is watched
      CHECK(std::fabs(y[i] - expected[at]) <= allowed[at]);
    }
  };
  const auto room = [&](int width) { return std::vector<float>(static_cast<size_t>((matrix.columns + 1) * width) + 16); };
  std::vector<float> wide = room(sparse::kBatch), narrow = room(sparse::kFew);
  // the samples from `first` on as lines of `width`
  const auto lines = [&](std::vector<float>& held, int width, int64_t first) {
    float* aligned = held.data() + (64 - reinterpret_cast<uintptr_t>(held.data()) % 64) / 4 % 16;
    std::fill_n(aligned, (matrix.columns + 1) * width, 0.0f);
    for (int64_t n = 0; n < std::min<int64_t>(width, samples - first); ++n)
      for (int64_t j = 0; j < matrix.columns; ++j) aligned[j * width + n] = x[(first + n) * matrix.columns + j];
    return aligned;
  };
  std::vector<float> batch(static_cast<size_t>(samples * matrix.rows)), few(batch);
  std::vector<sparse::Active> active(static_cast<size_t>(matrix.columns));
  for (int64_t n = 0; n < samples; ++n) {
    const float* one = x.data() + n * matrix.columns;
    const int64_t count = sparse::find_active(one, matrix.columns, active.data());
    std::vector<float> columns(static_cast<size_t>(matrix.rows)), rows(columns.size());
    for (int64_t s = 0; s < matrix.streams; ++s) {
      sparse::add_columns(matrix, s, active.data(), count, columns.data() + matrix.starts[s]);
      const auto slices = sparse::by_rows(matrix, s);
      sparse::add_rows(slices, matrix.codebook, one, rows.data() + matrix.starts[s]);
      const auto together = [&](std::vector<float>& held, int width, std::vector<float>& y) {
        if (n % width) return;
        sparse::add_rows_batch(slices, matrix.codebook, lines(held, width, n), width, std::min<int64_t>(width, samples - n),
                               y.data() + n * matrix.rows + matrix.starts[s], matrix.rows);
      };
      together(wide, sparse::kBatch, batch);
      together(narrow, sparse::kFew, few);
    }
    near(columns, n * matrix.rows);
    near(rows, n * matrix.rows);
  }
  near(batch, 0);
  near(few, 0);
}

inline void sparse_products_equal_their_reference(Random& random) {
  for (int64_t rows : {1, 7, 16, 33, 300})
    for (int64_t columns : {1, 15, 64, 257})
      for (double density : {0.0, 0.01, 0.1, 0.6, 1.0})
        for (int64_t streams : {1, 3}) {
          if (streams > rows) continue;
          const auto fields = packed(random, rows, columns, density, streams, 1 + static_cast<int>(random() % 16));
          const auto matrix = fields.matrix();
          const int64_t samples = 1 + static_cast<int64_t>(random() % sparse::kBatch);
          std::vector<float> x(static_cast<size_t>(samples * columns));
          for (auto& value : x) value = random() % 3 ? static_cast<float>(random() % 2001) / 100.0f - 10.0f : 0.0f;
          std::vector<double> expected(static_cast<size_t>(samples * rows)), allowed(expected.size());
          sparse::reference_gemm(matrix, x.data(), samples, nullptr, expected.data());
          auto sizes = matrix;  // the sum of magnitudes bounds what rounding can do
          for (auto& value : sizes.codebook) value = std::fabs(value);
          std::vector<float> magnitudes(x);
          for (auto& value : magnitudes) value = std::fabs(value);
          sparse::reference_gemm(sizes, magnitudes.data(), samples, nullptr, allowed.data());
          for (auto& value : allowed) value = value * 1e-5 + 1e-30;
          for (const char* variant : variants()) {
            gossamer_set_isa(variant);
            all_kernels(matrix, x, samples, expected, allowed);
          }
        }
  gossamer_set_isa("");
}

// A long run reads nothing: neither an infinite input nor an infinite weight becomes NaN through it.
inline void long_runs_touch_no_value(Random& random) {
  for (const char* variant : variants()) {
    gossamer_set_isa(variant);
    auto fields = packed(random, 40, 300, 0.02, 1, 16);
    const auto matrix = fields.matrix();
    std::vector<bool> used(300, false);
    sparse::each_entry(matrix, 0, [&](int64_t, int64_t j, unsigned) { used[j] = true; });
    std::vector<float> x(300);
    for (size_t j = 0; j < x.size(); ++j) x[j] = used[j] ? 1.0f : INFINITY;
    std::vector<double> expected(40), allowed(40, 1e-4);
    std::vector<float> finite(x);
    for (auto& value : finite) value = std::isinf(value) ? 0.0f : value;
    sparse::reference_gemm(matrix, finite.data(), 1, nullptr, expected.data());
    all_kernels(matrix, x, 1, expected, allowed);
  }
  gossamer_set_isa("");
}

// Either the check refuses changed fields, or running them stays inside their memory (the sanitizers watch).
inline void damaged_sparse_fields_are_refused_or_harmless(Random& random, int rounds) {
  int refused = 0;
  for (int round = 0; round < rounds; ++round) {
    auto fields = packed(random, 1 + static_cast<int64_t>(random() % 90), 1 + static_cast<int64_t>(random() % 40), 0.2,
                         1, 1 + static_cast<int>(random() % 16));
    if (!fields.bytes.empty() && random() % 2) fields.bytes[random() % fields.bytes.size()] = static_cast<uint8_t>(random());
    if (random() % 4 == 0) fields.counts[random() % fields.counts.size()] = static_cast<uint16_t>(random() % 9);
    if (random() % 8 == 0) fields.bytes.resize(random() % (fields.bytes.size() + 2));
    if (random() % 8 == 0) fields.starts[random() % 2] += static_cast<int64_t>(random() % 5) - 2;
    if (random() % 16 == 0) fields.starts.push_back(static_cast<int64_t>(random()));
    if (random() % 16 == 0) fields.codebook.resize(random() % 20);
    try {
      const auto matrix = fields.matrix();
      std::vector<float> x(static_cast<size_t>(3 * matrix.columns), 1.0f);
      gossamer_set_isa(variants()[static_cast<size_t>(round) % variants().size()]);
      all_kernels(matrix, x, 3, {}, {});
    } catch (const std::invalid_argument& error) {
      CHECK(std::string(error.what()).find("damaged") != std::string::npos);
      ++refused;
    }
  }
  CHECK(refused > rounds / 10);
  gossamer_set_isa("");
}

inline void packing_refuses_what_does_not_fit() {
  const int64_t positions[] = {0, 5, 5}, starts[] = {0, 2}, far[] = {6};
  const uint8_t codes[] = {1, 2, 16};
  uint16_t counts[3];
  const auto pack = [&](const int64_t* at, const uint8_t* code, int64_t entries, int64_t rows) {
    return gossamer_sparse_pack(at, code, entries, rows, 3, 0, starts, 1, counts, nullptr, 0);
  };
  CHECK(pack(positions, codes, 2, 2) == 2);
  CHECK(pack(positions, codes, 3, 2) == GOSSAMER_UNSORTED);
  CHECK(pack(far, codes, 1, 2) == GOSSAMER_OUT_OF_RANGE);
  CHECK(pack(positions, codes + 2, 1, 2) == GOSSAMER_OUT_OF_RANGE);
  CHECK(pack(positions, codes, 2, 3) == GOSSAMER_BAD_ARGUMENT);
}

}  // namespace gossamer::test
