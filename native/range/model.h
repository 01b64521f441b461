// Adaptive models over the range coder, written once for both directions: `bit(coder, value)` writes value
// when the coder is an Encoder, and ignores it and reads when the coder is a Decoder; both return the value.
//
// A bit is predicted by the running mean of the bits seen, p += (seen - p) / (n + 2) from p = 1/2: the estimate of
// Krichevsky and Trofimov. n stops growing at `limit`, which lets the mean forget.
#pragma once

#include <array>

#include "range/coder.h"

namespace gossamer::range {

constexpr int kMostSeen = 1023;

inline const std::array<uint32_t, kMostSeen + 1>& rates() {
  static const std::array<uint32_t, kMostSeen + 1> table = [] {
    std::array<uint32_t, kMostSeen + 1> rate{};
    for (uint32_t n = 0; n <= kMostSeen; ++n) rate[n] = 65536u / (n + 2u);
    return rate;
  }();
  return table;
}

inline unsigned code_bit(Encoder& coder, uint32_t zero, unsigned bit) {
  coder.put_bit(zero, bit);
  return bit;
}
inline unsigned code_bit(Decoder& coder, uint32_t zero, unsigned) { return coder.get_bit(zero); }

// `count` equally likely bits, high first, 30 at most.
inline uint32_t raw(Encoder& coder, int count, uint32_t value) {
  if (count) coder.put(value, 1, count);
  return value;
}
inline uint32_t raw(Decoder& coder, int count, uint32_t) {
  if (!count) return 0;
  const uint32_t value = coder.peek(count);
  coder.take(value, 1);
  return value;
}

class Mean {
 public:
  Mean() = default;
  explicit Mean(uint32_t zero, int seen = 0) : zero_(zero), seen_(static_cast<uint16_t>(seen)) {}

  uint32_t zero() const { return zero_; }
  void update(unsigned bit, int limit) {
    const uint32_t rate = rates()[seen_];
    // the ends stay codable: a bit never costs more than 11 bits, nor less than 0.0007
    if (bit) {
      zero_ -= static_cast<uint32_t>(uint64_t{zero_ - 32} * rate >> 16);
    } else {
      zero_ += static_cast<uint32_t>(uint64_t{65504 - zero_} * rate >> 16);
    }
    if (seen_ < limit) ++seen_;
  }
  template <class Coder>
  unsigned bit(Coder& coder, unsigned value, int limit = 254) {
    value = code_bit(coder, zero_, value);
    update(value, limit);
    return value;
  }

 private:
  uint32_t zero_ = 32768;
  uint16_t seen_ = 0;
};

// Numbers >= 0 by the Elias-gamma code of v + 1: a unary class with one model per step, then the bits below
// the leading one, the first of them modelled.
class Number {
 public:
  static constexpr int kClasses = 31;

  template <class Coder>
  uint32_t code(Coder& coder, uint32_t value) {
    const int wanted = bit_length(uint64_t{value} + 1) - 1;
    int size = 0;
    while (size < kClasses && unary_[size].bit(coder, size < wanted)) ++size;
    if (size >= kClasses) throw Error{GOSSAMER_CORRUPT};
    uint64_t number = 1;
    int left = size;
    if (left > 0) {
      --left;
      number = 2 | top_[size].bit(coder, (uint64_t{value} + 1) >> left & 1);
    }
    number = number << left | raw(coder, left, (uint64_t{value} + 1) & ((uint64_t{1} << left) - 1));
    return static_cast<uint32_t>(number - 1);
  }

 private:
  std::array<Mean, kClasses> unary_{};
  std::array<Mean, kClasses> top_{};
};

}  // namespace gossamer::range
