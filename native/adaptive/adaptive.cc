// Adaptive binary range coder: no table, for fields so small that a table would dominate.
//
// The payload opens with a mode, which the encoder finds by trying them all on small fields:
//   tree    0: a bit-tree over the whole symbol (width <= 8); 1: Elias-gamma classes with modelled leading bits
//   quick   0: slow running means, for symbols drawn from one distribution; 1: mean of a slow and a quick one
//   context 0: none; 1: the top two bits of the previous symbol
//   prior   what a bit-tree believes at the start (prior.h)
#include <algorithm>
#include <cmath>

#include "adaptive/prior.h"

namespace gossamer::adaptive {
namespace {

using range::Decoder;
using range::Encoder;
using range::Mean;

struct Mode {
  unsigned gamma = 0, quick = 0, context = 0;
  Prior prior;
};

class Bit {
 public:
  Bit() = default;
  Bit(uint32_t zero, int seen) : slow_(zero, seen), quick_(zero, std::min(seen, 20)) {}
  template <bool quick, class Coder>
  unsigned code(Coder& coder, unsigned value) {
    if constexpr (!quick) return slow_.bit(coder, value, range::kMostSeen);
    value = range::code_bit(coder, (slow_.zero() + quick_.zero()) >> 1, value);
    slow_.update(value, 200);
    quick_.update(value, 20);
    return value;
  }

 private:
  Mean slow_, quick_;
};

class Tree {
 public:
  explicit Tree(int width, const Prior& prior = {}) : width_(width), nodes_(size_t{1} << width) {
    if (!prior.used) return;
    const auto weights = node_weights(prior, width);
    for (size_t node = 1; node < nodes_.size(); ++node) {
      const uint64_t zero = (weights[2 * node] << 16) / weights[node];
      const uint64_t seen = weights[node] * kStrengths[prior.strength] / weights[1];
      nodes_[node] = Bit(static_cast<uint32_t>(std::min<uint64_t>(std::max<uint64_t>(zero, 64), 65472)),
                         static_cast<int>(seen));
    }
  }
  template <bool quick, class Coder>
  uint32_t code(Coder& coder, uint32_t value) {
    uint32_t node = 1;
    for (int b = width_ - 1; b >= 0; --b) node = node << 1 | nodes_[node].code<quick>(coder, value >> b & 1);
    return node - (1u << width_);
  }

 private:
  int width_;
  std::vector<Bit> nodes_;
};

// Class k = bit length of (v + 1), by a tree of 5 bits; of the k - 1 bits below the leading one the first three are modelled.
class Gamma {
 public:
  explicit Gamma(int width, const Prior& = {}) : width_(width), classes_(5), leading_(32 * 8) {}
  template <bool quick, class Coder>
  uint32_t code(Coder& coder, uint32_t value) {
    const int size = static_cast<int>(classes_.code<quick>(coder, bit_length(uint64_t{value} + 1)));
    if (size < 1 || size > width_ + 1) throw Error{GOSSAMER_CORRUPT};
    uint32_t number = 1, node = 1;
    int left = size - 1;
    for (; left > 0 && node < 8; --left) {
      const unsigned bit = leading_[size * 8 + node].code<quick>(coder, (value + 1) >> (left - 1) & 1);
      number = number << 1 | bit;
      node = node << 1 | bit;
    }
    number = number << left | range::raw(coder, left, (value + 1) & ((1u << left) - 1));
    if ((number - 1) >> width_) throw Error{GOSSAMER_CORRUPT};
    return number - 1;
  }

 private:
  int width_;
  Tree classes_;
  std::vector<Bit> leading_;
};

template <class Model, bool quick, class Coder, class Symbol>
void run(Coder& coder, Symbol* symbols, int64_t count, int width, const Mode& mode) {
  const bool context = mode.context;
  std::vector<Model> models(context ? 4 : 1, Model(width, mode.prior));
  const int shift = width > 2 ? width - 2 : 0;
  uint32_t previous = 0;
  for (int64_t i = 0; i < count; ++i) {
    Model& model = models[context ? (previous >> shift) & 3 : 0];
    if constexpr (Coder::decoding) {
      previous = model.template code<quick>(coder, 0);
      symbols[i] = static_cast<Symbol>(previous);
    } else {
      previous = model.template code<quick>(coder, symbols[i]);
    }
  }
}

template <class Coder, class Symbol>
void code(Coder& coder, Symbol* symbols, int64_t count, int width, Mode mode) {
  mode.gamma = width > 8 ? 1 : range::raw(coder, 1, mode.gamma);
  mode.quick = Mean(45875).bit(coder, mode.quick);
  mode.context = Mean(45875).bit(coder, mode.context);
  if (!mode.gamma) mode.prior.code(coder);
  if (mode.gamma) {
    mode.quick ? run<Gamma, true>(coder, symbols, count, width, mode)
               : run<Gamma, false>(coder, symbols, count, width, mode);
  } else {
    mode.quick ? run<Tree, true>(coder, symbols, count, width, mode)
               : run<Tree, false>(coder, symbols, count, width, mode);
  }
}

// A long field is judged by its beginning, and has no use for a prior.
constexpr int64_t kTried = 16384;

// Shapes worth a trial: a bell at the mean, an exponential at the median, and one from symbol 0 on.
template <class Symbol>
std::vector<Prior> priors(const Symbol* symbols, int64_t count, int width) {
  std::vector<Symbol> sorted(symbols, symbols + count);
  std::sort(sorted.begin(), sorted.end());
  const double n = static_cast<double>(count), size = static_cast<double>(1 << width);
  const double median = sorted[static_cast<size_t>(count / 2)];
  double mean = 0, square = 0, away = 0;
  for (Symbol s : sorted) {
    mean += s / n;
    square += double{1.0} * s * s / n;
    away += std::abs(s - median) / n;
  }
  const double deviation = std::sqrt(std::max(square - mean * mean, 0.0));
  const auto centre = [&](double at) {
    return static_cast<unsigned>(std::min(std::max(std::floor(at * kCentres / (size - 1)), 1.0), kCentres - 2.0));
  };
  // distances at which each shape halves: sigma sqrt(2 ln 2), b ln 2
  const struct {
    unsigned bell, centre;
    double half;
  } shapes[] = {{1, centre(mean), 1.1774 * deviation}, {0, centre(median), 0.6931 * away}, {0, 0, 0.6931 * mean}};
  std::vector<Prior> found;
  for (const auto& shape : shapes) {
    const int near = static_cast<int>(std::lround(2 * std::log2(std::max(shape.half, 0.5)) + 2));
    for (int spread = near - 1; spread <= near + 1; ++spread)
      for (unsigned strength = 0; strength < 4; ++strength)
        if (spread >= 0 && spread < static_cast<int>(kSpreads))
          found.push_back({1, shape.bell, shape.centre, static_cast<unsigned>(spread), strength});
  }
  return found;
}

template <class Symbol>
Bytes encode(const Symbol* symbols, int64_t count, int width) {
  if (count == 0) return {};
  Mode best;
  double fewest = 0;
  const auto attempt = [&](const Mode& mode) {
    Encoder coder;
    code(coder, symbols, std::min(count, kTried), width, mode);
    if (fewest != 0 && coder.bits() >= fewest) return;
    fewest = coder.bits();
    best = mode;
  };
  for (unsigned choice = width > 8 ? 4 : 0; choice < 8; ++choice)
    attempt({choice >> 2, choice >> 1 & 1, choice & 1, {}});
  if (width <= 8 && count <= kTried)
    for (const Prior& prior : priors(symbols, count, width)) attempt({0, 0, 0, prior});
  Encoder coder;
  code(coder, symbols, count, width, best);
  return coder.finish();
}

}  // namespace
}  // namespace gossamer::adaptive

using namespace gossamer;

extern "C" {

int64_t gossamer_adaptive_encode(const void* symbols, int64_t count, int32_t width, uint8_t** out) {
  if (!valid(symbols, count, width) || !out) return GOSSAMER_BAD_ARGUMENT;
  return typed(symbols, width, [&](auto* typed_symbols) -> int64_t {
    for (int64_t i = 0; i < count; ++i)
      if (typed_symbols[i] >> width) return GOSSAMER_OUT_OF_RANGE;
    return hand_over(adaptive::encode(typed_symbols, count, width), out);
  });
}

int64_t gossamer_adaptive_decode(const uint8_t* payload, int64_t size, void* symbols, int64_t count,
                                 int32_t width) {
  if (!valid(symbols, count, width) || size < 0 || (!payload && size)) return GOSSAMER_BAD_ARGUMENT;
  if (count == 0) return size ? GOSSAMER_TRAILING : 0;
  return typed(symbols, width, [&](auto* typed_symbols) -> int64_t {
    range::Decoder coder(payload, size);
    adaptive::code(coder, typed_symbols, count, width, {});
    coder.finish();
    return 0;
  });
}

}  // extern "C"
