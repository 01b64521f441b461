// Eight symbols are exactly `width` bytes, so groups of eight start on a byte and unroll per width.
#include <cstdint>

#include "bitpack/reference.h"
#include "symbols.h"

namespace gossamer::bitpack {
namespace {

constexpr int64_t bytes_of(int64_t count, int width) { return (count * width + 7) / 8; }

template <int Width, class Symbol>
void pack(const Symbol* symbols, int64_t count, uint8_t* out) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8, out += Width) {
    uint64_t low = 0, high = 0;  // four symbols are at most 64 bits
    for (int k = 0; k < 4; ++k) low |= uint64_t{symbols[i + k]} << (k * Width);
    for (int k = 0; k < 4; ++k) high |= uint64_t{symbols[i + 4 + k]} << (k * Width);
    // bits [0, 4 Width) come from low, [4 Width, 8 Width) from high
    if constexpr (4 * Width < 64) {
      const uint64_t first = low | high << (4 * Width);
      const uint64_t second = Width > 8 ? high >> (64 - 4 * Width) : 0;
      for (int b = 0; b < Width && b < 8; ++b) out[b] = static_cast<uint8_t>(first >> (8 * b));
      for (int b = 8; b < Width; ++b) out[b] = static_cast<uint8_t>(second >> (8 * (b - 8)));
    } else {
      store(out, low);
      store(out + 8, high);
    }
  }
  reference_pack(symbols + i, count - i, Width, out);
}

template <int Width, class Symbol>
void unpack(const uint8_t* payload, Symbol* symbols, int64_t count) {
  constexpr uint64_t mask = (uint64_t{1} << Width) - 1;
  int64_t i = 0;
  for (; i + 8 <= count; i += 8, payload += Width) {
    uint64_t first = 0, second = 0;
    if constexpr (Width >= 8) {
      first = load<uint64_t>(payload);
      for (int b = 8; b < Width; ++b) second |= uint64_t{payload[b]} << (8 * (b - 8));
    } else {
      for (int b = 0; b < Width; ++b) first |= uint64_t{payload[b]} << (8 * b);
    }
    for (int k = 0; k < 8; ++k) {
      const int bit = k * Width;
      uint64_t value = bit < 64 ? first >> (bit & 63) : second >> (bit & 63);
      if (bit < 64 && bit + Width > 64) value |= second << ((64 - bit) & 63);
      symbols[i + k] = static_cast<Symbol>(value & mask);
    }
  }
  reference_unpack(payload, symbols + i, count - i, Width);
}

template <class Work>
void by_width(int width, Work work) {
#define GOSSAMER_CASE(W) \
  case W: return work(std::integral_constant<int, W>{});
  switch (width) {
    GOSSAMER_CASE(1) GOSSAMER_CASE(2) GOSSAMER_CASE(3) GOSSAMER_CASE(4) GOSSAMER_CASE(5) GOSSAMER_CASE(6)
    GOSSAMER_CASE(7) GOSSAMER_CASE(8) GOSSAMER_CASE(9) GOSSAMER_CASE(10) GOSSAMER_CASE(11) GOSSAMER_CASE(12)
    GOSSAMER_CASE(13) GOSSAMER_CASE(14) GOSSAMER_CASE(15) GOSSAMER_CASE(16)
    default: throw Error{GOSSAMER_BAD_ARGUMENT};
  }
#undef GOSSAMER_CASE
}

}  // namespace
}  // namespace gossamer::bitpack

using namespace gossamer;

extern "C" {

// out holds ceil(count * width / 8) bytes.
int64_t gossamer_bitpack_encode(const void* symbols, int64_t count, int32_t width, uint8_t* out) {
  if (!valid(symbols, count, width) || (!out && count)) return GOSSAMER_BAD_ARGUMENT;
  return typed(symbols, width, [&](auto* typed_symbols) {
    bitpack::by_width(width, [&](auto w) { bitpack::pack<w>(typed_symbols, count, out); });
    return bitpack::bytes_of(count, width);
  });
}

int64_t gossamer_bitpack_decode(const uint8_t* payload, int64_t size, void* symbols, int64_t count,
                                int32_t width) {
  if (!valid(symbols, count, width) || size < 0 || (!payload && size)) return GOSSAMER_BAD_ARGUMENT;
  if (size < bitpack::bytes_of(count, width)) return GOSSAMER_TRUNCATED;
  if (size > bitpack::bytes_of(count, width)) return GOSSAMER_TRAILING;
  return typed(symbols, width, [&](auto* typed_symbols) -> int64_t {
    bitpack::by_width(width, [&](auto w) { bitpack::unpack<w>(payload, typed_symbols, count); });
    return 0;
  });
}

int64_t gossamer_histogram(const void* symbols, int64_t count, int32_t width, int64_t* counts) {
  if (!valid(symbols, count, width) || !counts) return GOSSAMER_BAD_ARGUMENT;
  return typed(symbols, width, [&](auto* typed_symbols) -> int64_t {
    const auto found = histogram(typed_symbols, count, width);
    std::memcpy(counts, found.data(), found.size() * sizeof(int64_t));
    return 0;
  });
}

}  // extern "C"
