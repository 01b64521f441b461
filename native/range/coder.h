// A range coder with 64-bit range and carry: the exact, slow coder behind tables, small fields and adaptation.
//
// A message is a nested interval [low, low + range) of [0, 1). A symbol of probability freq / 2^bits at
// cum / 2^bits narrows it; when range falls below 2^56 the top byte of low leaves. A carry walks back
// through bytes already written. The end is the shortest byte string inside the interval; the decoder reads
// zeros past the payload, so trailing zero bytes cost nothing.
#pragma once

#include <cmath>

#include "symbols.h"

namespace gossamer::range {

constexpr uint64_t kLowest = uint64_t{1} << 56;

class Encoder {
 public:
  static constexpr bool decoding = false;

  // The interval [cum, cum + freq) of 2^bits, bits <= 30.
  void put(uint32_t cum, uint32_t freq, int bits) {
    const uint64_t unit = range_ >> bits;
    add(unit * cum);
    range_ = unit * freq;
    shift_out();
  }

  // One bit whose probability of being 0 is zero / 65536.
  void put_bit(uint32_t zero, unsigned bit) {
    const uint64_t bound = (range_ >> 16) * zero;
    if (bit) {
      add(bound);
      range_ -= bound;
    } else {
      range_ = bound;
    }
    shift_out();
  }

  double bits() const {
    return 8.0 * static_cast<double>(out_.size()) + 64.0 - std::log2(static_cast<double>(range_));
  }

  // `open`: other bytes follow, so every continuation must stay inside the interval.
  Bytes finish(bool open = false) {
    for (int kept = 0; kept <= 8; ++kept) {
      const uint64_t rest = kept == 8 ? 0 : ~uint64_t{0} >> (8 * kept);
      const uint64_t end = (low_ + rest) & ~rest;
      const uint64_t ahead = end - low_;
      if (ahead >= range_ || (open && rest >= range_ - ahead)) continue;
      if (end < low_) carry();
      for (int b = 0; b < kept; ++b) out_.push_back(static_cast<uint8_t>(end >> (56 - 8 * b)));
      break;
    }
    while (!open && !out_.empty() && out_.back() == 0) out_.pop_back();
    return std::move(out_);
  }

 private:
  void add(uint64_t amount) {
    low_ += amount;
    if (low_ < amount) carry();
  }
  void carry() {
    for (size_t i = out_.size(); i-- > 0;)
      if (++out_[i]) return;
  }
  void shift_out() {
    while (range_ < kLowest) {
      out_.push_back(static_cast<uint8_t>(low_ >> 56));
      low_ <<= 8;
      range_ <<= 8;
    }
  }

  Bytes out_;
  uint64_t low_ = 0, range_ = ~uint64_t{0};
};

class Decoder {
 public:
  static constexpr bool decoding = true;

  Decoder(const uint8_t* payload, int64_t size) : at_(payload), size_(size) {
    for (int i = 0; i < 8; ++i) shift_in();
  }

  // Where in [0, 2^bits) the message lies; follow with take(cum, freq) of the symbol found there.
  uint32_t peek(int bits) {
    unit_ = range_ >> bits;
    const uint64_t slot = code_ / unit_;
    if (slot >> bits) throw Error{GOSSAMER_CORRUPT};
    return static_cast<uint32_t>(slot);
  }
  void take(uint32_t cum, uint32_t freq) {
    code_ -= unit_ * cum;
    range_ = unit_ * freq;
    renormalize();
  }

  unsigned get_bit(uint32_t zero) {
    const uint64_t bound = (range_ >> 16) * zero;
    const unsigned bit = code_ >= bound;
    if (bit) {
      code_ -= bound;
      range_ -= bound;
    } else {
      range_ = bound;
    }
    renormalize();
    return bit;
  }

  // Bytes that no symbol asked for mean another count, or another payload.
  void finish() const {
    if (used_ < size_) throw Error{GOSSAMER_TRAILING};
  }

 private:
  void shift_in() {
    code_ = code_ << 8 | (used_ < size_ ? at_[used_] : 0);
    ++used_;
  }
  void renormalize() {
    while (range_ < kLowest) {
      range_ <<= 8;
      shift_in();
    }
  }

  const uint8_t* at_;
  int64_t size_, used_ = 0;
  uint64_t code_ = 0, range_ = ~uint64_t{0}, unit_ = 0;
};

}  // namespace gossamer::range
