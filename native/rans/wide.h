// Four rANS states of 64 bits that share one sequence of 32-bit words: any alphabet, precision up to 30 bits.
//
// Decode, symbol i in lane i % 4, L = 2^32:
//     slot = x mod 2^n;  s: cum_s <= slot < cum_{s+1};  x = f_s (x >> n) + slot - cum_s;  x < L: x = x 2^32 + next word
// Encoding runs backwards from x = L in every lane, so decoding ends there: a check that costs nothing.
// Stored: per lane the state (8 bytes), then the words in reading order.
#pragma once

#include "rans/model.h"

namespace gossamer::rans {

constexpr int kWideLanes = 4;
constexpr uint64_t kWideLow = uint64_t{1} << 32;

template <class Symbol>
void encode_wide(const Symbol* symbols, int64_t count, int width, const Model& model, Bytes& out) {
  struct Slot {
    uint32_t cum, freq;
  };
  std::vector<Slot> slots(size_t{1} << width);
  for (size_t k = 0; k < model.size(); ++k) slots[model.symbol[k]] = {model.cum[k], model.freq(k)};
  const int n = model.precision;
  uint64_t states[kWideLanes];
  std::fill(states, states + kWideLanes, kWideLow);
  std::vector<uint32_t> words;
  for (int64_t i = count; i-- > 0;) {
    uint64_t& x = states[i % kWideLanes];
    const Slot slot = slots[symbols[i]];
    if (x >> (64 - n) >= slot.freq) {
      words.push_back(static_cast<uint32_t>(x));
      x >>= 32;
    }
    x = ((x / slot.freq) << n) + x % slot.freq + slot.cum;
  }
  const size_t at = out.size();
  out.resize(at + 8 * kWideLanes + 4 * words.size());
  for (int lane = 0; lane < kWideLanes; ++lane) store(out.data() + at + 8 * lane, states[lane]);
  uint8_t* to = out.data() + at + 8 * kWideLanes;
  for (size_t i = words.size(); i-- > 0; to += 4) store(to, words[i]);
}

template <bool direct, class Symbol>
void decode_wide_by(const Finder& find, const uint8_t* at, int64_t size, Symbol* symbols, int64_t count,
                    const Model& model) {
  const uint8_t* end = at + size;
  struct Slot {
    uint32_t cum, freq, symbol;
  };
  std::vector<Slot> table(model.size());
  for (size_t k = 0; k < model.size(); ++k) table[k] = {model.cum[k], model.freq(k), model.symbol[k]};
  // plain pointers, as a store of a byte may alias anything a vector owns
  const Slot* slots = table.data();
  const uint16_t* first = find.first();
  const int n = model.precision;
  const uint64_t mask = (uint64_t{1} << n) - 1;
  uint64_t states[kWideLanes];
  for (int lane = 0; lane < kWideLanes; ++lane, at += 8) states[lane] = load<uint64_t>(at);
  const auto step = [&find, slots, first, n, mask](uint64_t& x, Symbol* to) {
    const uint32_t slot = static_cast<uint32_t>(x & mask);
    const Slot one = slots[direct ? first[slot] : find(slot)];
    *to = static_cast<Symbol>(one.symbol);
    x = one.freq * (x >> n) + slot - one.cum;
  };
  int64_t i = 0;
  for (; i + kWideLanes <= count && end - at >= 4 * kWideLanes; i += kWideLanes) {
    for (int lane = 0; lane < kWideLanes; ++lane) step(states[lane], symbols + i + lane);
    for (int lane = 0; lane < kWideLanes; ++lane) {
      const bool low = states[lane] < kWideLow;
      const uint64_t next = states[lane] << 32 | load<uint32_t>(at);
      states[lane] = low ? next : states[lane];
      at += low ? 4 : 0;
    }
  }
  for (; i < count; ++i) {
    uint64_t& x = states[i % kWideLanes];
    step(x, symbols + i);
    if (x >= kWideLow) continue;
    if (end - at < 4) throw Error{GOSSAMER_TRUNCATED};
    x = x << 32 | load<uint32_t>(at);
    at += 4;
  }
  if (at != end) throw Error{GOSSAMER_TRAILING};
  for (uint64_t x : states)
    if (x != kWideLow) throw Error{GOSSAMER_CORRUPT};
}

template <class Symbol>
void decode_wide(const uint8_t* at, int64_t size, Symbol* symbols, int64_t count, const Model& model) {
  if (size < 8 * kWideLanes) throw Error{GOSSAMER_TRUNCATED};
  const Finder find(model);
  find.direct() ? decode_wide_by<true>(find, at, size, symbols, count, model)
                : decode_wide_by<false>(find, at, size, symbols, count, model);
}

}  // namespace gossamer::rans
