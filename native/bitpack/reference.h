// Bit packing: symbol i occupies bits [i * width, (i + 1) * width) of the payload, low bit first.
#pragma once

#include <cstdint>

namespace gossamer::bitpack {

template <class Symbol>
void reference_pack(const Symbol* symbols, int64_t count, int width, uint8_t* out) {
  for (int64_t i = 0; i < (count * width + 7) / 8; ++i) out[i] = 0;
  for (int64_t i = 0; i < count; ++i)
    for (int b = 0; b < width; ++b) {
      const int64_t bit = i * width + b;
      out[bit / 8] = static_cast<uint8_t>(out[bit / 8] | (symbols[i] >> b & 1) << (bit % 8));
    }
}

template <class Symbol>
void reference_unpack(const uint8_t* payload, Symbol* symbols, int64_t count, int width) {
  for (int64_t i = 0; i < count; ++i) {
    unsigned value = 0;
    for (int b = 0; b < width; ++b) {
      const int64_t bit = i * width + b;
      value |= (payload[bit / 8] >> (bit % 8) & 1u) << b;
    }
    symbols[i] = static_cast<Symbol>(value);
  }
}

}  // namespace gossamer::bitpack
