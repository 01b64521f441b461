// Adaptive binary range coder: no table, for fields so small that a table would dominate.
//
// The payload opens with a mode, which the encoder finds by trying them all on small fields:
//   tree    0: a bit-tree over the whole symbol (width <= 8); 1: Elias-gamma classes with modelled leading bits
//   quick   0: slow running means, for symbols drawn from one distribution; 1: mean of a slow and a quick one
//   context 0: none; 1: the top two bits of the previous symbol
#include "range/model.h"

namespace gossamer::adaptive {
namespace {

using range::Decoder;
using range::Encoder;
using range::Mean;

struct Mode {
  unsigned gamma, quick, context;
};

class Bit {
 public:
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
  explicit Tree(int width) : width_(width), nodes_(size_t{1} << width) {}
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
  explicit Gamma(int width) : width_(width), classes_(5), leading_(32 * 8) {}
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
void run(Coder& coder, Symbol* symbols, int64_t count, int width, bool context) {
  std::vector<Model> models(context ? 4 : 1, Model(width));
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
  if (mode.gamma) {
    mode.quick ? run<Gamma, true>(coder, symbols, count, width, mode.context)
               : run<Gamma, false>(coder, symbols, count, width, mode.context);
  } else {
    mode.quick ? run<Tree, true>(coder, symbols, count, width, mode.context)
               : run<Tree, false>(coder, symbols, count, width, mode.context);
  }
}

// A long field is judged by its beginning.
constexpr int64_t kTried = 16384;

template <class Symbol>
Bytes encode(const Symbol* symbols, int64_t count, int width) {
  if (count == 0) return {};
  Mode best{width > 8, 0, 0};
  double fewest = 0;
  for (unsigned choice = 0; choice < 8; ++choice) {
    const Mode mode{choice >> 2, choice >> 1 & 1, choice & 1};
    if (width > 8 && !mode.gamma) continue;
    Encoder coder;
    code(coder, symbols, count < kTried ? count : kTried, width, mode);
    const double bits = coder.bits();
    if (fewest == 0 || bits < fewest) {
      fewest = bits;
      best = mode;
    }
  }
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
