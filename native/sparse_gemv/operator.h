// SparseGemm (domain ai.gossamer, version 1): y[..., i] = bias[i] + sum_j W[i, j] x[..., j], W as in format.h.
//
//     x         float32 [..., columns]
//     bytes     uint8  [size]                  initialisers, checked once: a damaged one stops the session's creation
//     counts    uint16 [streams * columns]     bytes of each column of each stream
//     starts    int64  [streams + 1]           the rows of each stream; the last is the number of rows
//     codebook  float32 [1..16]
//     bias      float32 [rows], optional
//     y         float32 [..., rows]
//
// Inputs that are zero are skipped where that pays (columns.h), so an infinite weight times such a zero counts nothing.
#pragma once

#include <mutex>

#include "ort/kernel.h"
#include "sparse_gemv/columns.h"
#include "sparse_gemv/rows.h"

namespace gossamer::sparse {

class SparseGemm {
 public:
  static constexpr const char* name = "SparseGemm";
  static constexpr ort::Port inputs[] = {
      {"x", ort::Element::float32, ort::Presence::required},
      {"bytes", ort::Element::uint8, ort::Presence::required},
      {"counts", ort::Element::uint16, ort::Presence::required},
      {"starts", ort::Element::int64, ort::Presence::required},
      {"codebook", ort::Element::float32, ort::Presence::required},
      {"bias", ort::Element::float32, ort::Presence::optional},
  };
  static constexpr ort::Port outputs[] = {{"y", ort::Element::float32, ort::Presence::required}};

  explicit SparseGemm(const ort::Creation& creation);
  void compute(const ort::Call& call) const;

 private:
  const std::vector<Rows>& rows() const;

  Matrix matrix_;
  mutable std::once_flag once_;      // rows are made when a call first wants them
  mutable std::vector<Rows> rows_;  // one per stream
};

}  // namespace gossamer::sparse
