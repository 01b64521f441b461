// The frequencies of a static coder: what the table stores, what both sides rebuild, and what it costs.
//
// The table stores q_s = round(scale * sqrt(count_s)), at least 1, not frequencies: sqrt makes the sampling noise of
// a count the same everywhere, so a step of q is worth equally many bits for rare and frequent symbols (the
// loss is about 0.24 / scale^2 bits per symbol of the alphabet). Both sides then share out M = 2^precision in
// integers: a symbol whose share q^2 M / W is below 1 gets 1, and so on for the rest of M until none is; the others get
//     f_s = floor(C_{s+1} M' / W') - floor(C_s M' / W'),  C = running sum of their q^2, W' its total, M' what is left.
// The encoder picks scale and precision by the exact sum of table and symbols, among those that stay within
// 0.3 % + 5 bytes of the entropy.
#pragma once

#include <cmath>

#include "range/table.h"

namespace gossamer::rans {

constexpr uint32_t kMostStep = 65535;
constexpr int kLeastPrecision = 6, kMostPrecision = 30;

struct Model {
  int precision = 0;
  std::vector<uint16_t> symbol;  // of the K that occur, ascending
  std::vector<uint32_t> cum;     // [K + 1], cum[0] = 0, cum[K] = 2^precision
  uint32_t freq(size_t k) const { return cum[k + 1] - cum[k]; }
  size_t size() const { return symbol.size(); }
};

inline bool fits(size_t alphabet, int precision) { return alphabet <= size_t{1} << precision; }

inline Model model_of(const range::Table& table, int precision) {
  constexpr int kRounds = 8;
  Model model;
  model.precision = precision;
  uint64_t total = 0;
  for (const auto& entry : table) total += uint64_t{entry.value} * entry.value;
  const int shift = std::max(0, bit_length(total) - 32);  // keeps C M' inside 64 bits
  std::vector<uint64_t> weight(table.size());
  uint64_t rest = 0, spare = uint64_t{1} << precision;
  for (size_t k = 0; k < table.size(); ++k) {
    weight[k] = std::max<uint64_t>(uint64_t{table[k].value} * table[k].value >> shift, 1);
    rest += weight[k];
  }
  // weight 0 marks a symbol that got its 1
  bool changed = true;
  for (int round = 0; changed && round < kRounds; ++round) {
    changed = false;
    const uint64_t all = rest, left = spare;
    for (uint64_t& w : weight) {
      if (!w || w * left >= all) continue;
      rest -= w;
      --spare;
      w = 0;
      changed = true;
    }
  }
  // a table that never settles: one for everybody first, then shares of what is left
  const uint64_t base = changed ? 1 : 0;
  if (changed) {
    for (uint64_t w : weight) spare -= w > 0;
  }
  uint64_t running = 0, fixed = 0;
  model.symbol.reserve(table.size());
  model.cum.reserve(table.size() + 1);
  model.cum.push_back(0);
  for (size_t k = 0; k < table.size(); ++k) {
    model.symbol.push_back(static_cast<uint16_t>(table[k].symbol));
    running += weight[k];
    fixed += weight[k] ? base : 1;
    model.cum.push_back(static_cast<uint32_t>(fixed + (rest ? running * spare / rest : 0)));
  }
  return model;
}

struct Counted {
  std::vector<uint32_t> symbol;
  std::vector<int64_t> count;
  int64_t total = 0, most = 0;
  double entropy_bits = 0;
};

inline Counted counted(const std::vector<int64_t>& histogram) {
  Counted found;
  for (size_t s = 0; s < histogram.size(); ++s) {
    if (!histogram[s]) continue;
    found.symbol.push_back(static_cast<uint32_t>(s));
    found.count.push_back(histogram[s]);
    found.total += histogram[s];
    found.most = std::max(found.most, histogram[s]);
  }
  for (int64_t c : found.count)
    found.entropy_bits += static_cast<double>(c) * std::log2(static_cast<double>(found.total) / static_cast<double>(c));
  return found;
}

inline range::Table steps_of(const Counted& counts, double scale) {
  range::Table table(counts.symbol.size());
  for (size_t k = 0; k < table.size(); ++k) {
    const double step = std::floor(scale * std::sqrt(static_cast<double>(counts.count[k])) + 0.5);
    table[k] = {counts.symbol[k], static_cast<uint32_t>(std::min(std::max(step, 1.0), double{kMostStep}))};
  }
  return table;
}

inline double data_bits(const Counted& counts, const Model& model) {
  double bits = static_cast<double>(counts.total) * model.precision;
  for (size_t k = 0; k < model.size(); ++k)
    bits -= static_cast<double>(counts.count[k]) * std::log2(static_cast<double>(model.freq(k)));
  return bits;
}

struct Plan {
  range::Table table;
  Model model;
  range::Shortest head{false, 0};
  double data = 0;  // bits of the symbols
};

// The cheapest table whose precision lies in [least, most].
inline Plan plan(const Counted& counts, int width, int least, int most) {
  static const double scales[] = {0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1, 1.2, 1.4, 1.7, 2, 2.8, 4, 8, 16};
  const double largest = kMostStep / std::sqrt(static_cast<double>(counts.most));
  const double allowed = 1.003 * counts.entropy_bits + 40;
  while (least < most && !fits(counts.symbol.size(), least)) ++least;
  const auto finest = steps_of(counts, std::min(16.0, largest));
  int precision = least;
  double fewest = 0;
  const auto refine = [&](const range::Table& table) {
    fewest = 0;
    for (int n = least; n <= most; ++n) {
      const double bits = data_bits(counts, model_of(table, n));
      if (fewest != 0 && bits > fewest - 0.5) continue;
      fewest = bits;
      precision = n;
    }
  };
  refine(finest);
  Plan best;
  bool found = false;
  for (double scale : scales) {
    Plan one;
    one.table = steps_of(counts, std::min(scale, largest));
    one.model = model_of(one.table, precision);
    one.data = data_bits(counts, one.model);
    const bool last = scale == scales[std::size(scales) - 1] || scale >= largest;
    if (one.data <= allowed || (last && !found)) {
      one.head = range::shortest(one.table, width, kMostStep);
      if (!found || one.data + one.head.bits < best.data + best.head.bits) best = std::move(one);
      found = true;
    }
    if (last) break;
  }
  refine(best.table);
  best.model = model_of(best.table, precision);
  best.data = data_bits(counts, best.model);
  return best;
}

// From a slot of [0, 2^precision) to the index of its symbol: direct up to 2^16, else a bucket and a search in it.
class Finder {
 public:
  explicit Finder(const Model& model) : model_(model), shift_(std::max(0, model.precision - kDirect)) {
    const uint32_t buckets = (1u << (model.precision - shift_)) + 1;
    first_.resize(buckets);
    size_t k = 0;
    for (uint32_t b = 0; b + 1 < buckets; ++b) {
      while (model.cum[k + 1] <= uint64_t{b} << shift_) ++k;
      first_[b] = static_cast<uint16_t>(k);
    }
    first_[buckets - 1] = static_cast<uint16_t>(model.size() - 1);
  }
  bool direct() const { return shift_ == 0; }
  const uint16_t* first() const { return first_.data(); }
  size_t operator()(uint32_t slot) const {
    const uint32_t bucket = slot >> shift_;
    size_t low = first_[bucket];
    if (shift_ == 0) return low;
    size_t high = first_[bucket + 1];
    while (low < high) {
      const size_t middle = (low + high + 1) / 2;
      if (model_.cum[middle] <= slot) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    return low;
  }

 private:
  static constexpr int kDirect = 16;
  const Model& model_;
  int shift_;
  std::vector<uint16_t> first_;
};

}  // namespace gossamer::rans
