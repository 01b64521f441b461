// A coder's own table, inside its payload: one positive number (code length, or frequency step) per symbol that occurs.
//
// Histograms of weights and gaps are smooth, so a number is coded as its difference from the last one: equal?
// sign, then size, each bit by an adaptive model. The alphabet is walked densely with a "does not occur" flag,
// or, when few symbols of many occur, as a list of distances; the encoder writes both and keeps the shorter.
#pragma once

#include "range/model.h"

namespace gossamer::range {

struct Entry {
  uint32_t symbol, value;
};
using Table = std::vector<Entry>;

class Values {
 public:
  template <class Coder>
  uint32_t code(Coder& coder, uint32_t value, uint32_t most) {
    if (!last_) {
      value = first_.code(coder, value - 1) + 1;
    } else {
      const unsigned differs = differs_[trend_].bit(coder, value != last_);
      int trend = 0;
      if (differs) {
        // at 1 the only way is up
        const unsigned up = last_ == 1 ? 1 : up_[trend_].bit(coder, value > last_);
        const uint32_t size = size_.code(coder, (up ? value - last_ : last_ - value) - 1) + 1;
        trend = up ? 1 : 2;
        if (!up && size >= last_) throw Error{GOSSAMER_CORRUPT};
        value = up ? last_ + size : last_ - size;
      } else {
        value = last_;
      }
      trend_ = trend;
    }
    if (value < 1 || value > most) throw Error{GOSSAMER_CORRUPT};
    last_ = value;
    return value;
  }

 private:
  uint32_t last_ = 0;
  int trend_ = 0;  // 0 level, 1 rising, 2 falling
  std::array<Mean, 3> differs_{Mean{36000, 2}, Mean{32768, 2}, Mean{32768, 2}};
  std::array<Mean, 3> up_{Mean{}, Mean{19661, 2}, Mean{45875, 2}};
  Number first_, size_;
};

template <class Coder>
void code_dense(Coder& coder, Table& table, int width, uint32_t most) {
  Values values;
  const uint32_t top = (1u << width) - 1;
  uint32_t last = Coder::decoding ? 0 : table.back().symbol;
  const bool full = Mean(45875).bit(coder, last != top) == 0;
  last = full ? top : raw(coder, width, last);
  std::array<Mean, 4> absent{Mean{58982, 2}, Mean{}, Mean{}, Mean{19661, 1}};  // by the last two flags
  int before = 0;
  size_t next = 0;
  for (uint32_t symbol = 0; symbol <= last; ++symbol) {
    bool here = !Coder::decoding && table[next].symbol == symbol;
    here = symbol == last || !absent[before].bit(coder, !here);
    before = (before << 1 | !here) & 3;
    if (!here) continue;
    const uint32_t value = values.code(coder, Coder::decoding ? 0 : table[next].value, most);
    if (Coder::decoding) table.push_back({symbol, value});
    ++next;
  }
}

template <class Coder>
void code_sparse(Coder& coder, Table& table, int width, uint32_t most) {
  Values values;
  Number count, distance;
  const uint32_t size = count.code(coder, Coder::decoding ? 0 : static_cast<uint32_t>(table.size() - 1)) + 1;
  if (size > 1u << width) throw Error{GOSSAMER_CORRUPT};
  uint32_t symbol = 0;
  for (uint32_t i = 0; i < size; ++i) {
    const uint32_t least = i ? symbol + 1 : 0;
    symbol = least + distance.code(coder, Coder::decoding ? 0 : table[i].symbol - least);
    if (symbol >> width) throw Error{GOSSAMER_CORRUPT};
    const uint32_t value = values.code(coder, Coder::decoding ? 0 : table[i].value, most);
    if (Coder::decoding) table.push_back({symbol, value});
  }
}

// A table of one symbol is that symbol alone: its value carries no information and reads back as 1.
template <class Coder>
void code_table(Coder& coder, Table& table, int width, uint32_t most, bool sparse) {
  if (Mean(8192).bit(coder, Coder::decoding || table.size() != 1) == 0) {
    const uint32_t symbol = raw(coder, width, Coder::decoding ? 0 : table[0].symbol);
    table.assign(1, {symbol, 1});
    return;
  }
  if (Mean(45875).bit(coder, sparse)) {
    code_sparse(coder, table, width, most);
  } else {
    code_dense(coder, table, width, most);
  }
  if (Coder::decoding && table.size() < 2) throw Error{GOSSAMER_CORRUPT};
}

// The shorter of the two forms for this table, and its bits.
struct Shortest {
  bool sparse;
  double bits;
};
inline Shortest shortest(Table table, int width, uint32_t most) {
  Encoder dense, list;
  code_table(dense, table, width, most, false);
  code_table(list, table, width, most, true);
  const bool sparse = list.bits() < dense.bits();
  return {sparse, sparse ? list.bits() : dense.bits()};
}

}  // namespace gossamer::range
