// A test is a function that calls CHECK; the first failure prints its place and ends the program.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "gossamer.h"

#define CHECK(condition)                                                     \
  do {                                                                       \
    if (!(condition)) {                                                      \
      std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);   \
      std::exit(1);                                                          \
    }                                                                        \
  } while (0)

namespace gossamer::test {

using Random = std::mt19937_64;

// The variants that run here, the portable one first.
inline const std::vector<const char*>& variants() {
  static const std::vector<const char*> found = [] {
    std::vector<const char*> names;
    for (const char* name : {"portable", "neon", "avx2", "avx512"}) {
      CHECK(gossamer_set_isa(name) == 0);
      if (std::strcmp(gossamer_isa(), name) == 0) names.push_back(name);
    }
    gossamer_set_isa("");
    return names;
  }();
  return found;
}

// Fields of every character: uniform, geometric, nearly constant, bell-shaped, one symbol, spread over 16 bits.
template <class Symbol>
std::vector<Symbol> field(Random& random, int64_t count, int width) {
  const int kind = static_cast<int>(random() % 6);
  const uint32_t top = (1u << width) - 1;
  const uint32_t fixed = static_cast<uint32_t>(random()) & top;
  std::vector<Symbol> symbols(static_cast<size_t>(count));
  for (auto& symbol : symbols) {
    uint32_t value = static_cast<uint32_t>(random()) & top;
    if (kind == 1) value = static_cast<uint32_t>(__builtin_ctzll(random() | 1ull << 40)) & top;
    if (kind == 2) value = random() % 997 ? fixed : value;
    if (kind == 3) {
      uint64_t sum = 0;
      for (int k = 0; k < 8; ++k) sum += random() & top;
      value = static_cast<uint32_t>(sum / 8);
    }
    if (kind == 4) value = fixed;
    if (kind == 5) value = (value * value >> width) & top;
    symbol = static_cast<Symbol>(value);
  }
  return symbols;
}

using Encode = int64_t (*)(const void*, int64_t, int32_t, uint8_t**);
using Decode = int64_t (*)(const uint8_t*, int64_t, void*, int64_t, int32_t);

inline int64_t bitpack_encode(const void* symbols, int64_t count, int32_t width, uint8_t** out) {
  *out = static_cast<uint8_t*>(std::malloc(static_cast<size_t>(count * width / 8 + 1)));
  return gossamer_bitpack_encode(symbols, count, width, *out);
}

struct Coder {
  const char* name;
  Encode encode;
  Decode decode;
};
inline const Coder coders[] = {
    {"bitpack", bitpack_encode, gossamer_bitpack_decode},
    {"huffman", gossamer_huffman_encode, gossamer_huffman_decode},
    {"rans", gossamer_rans_encode, gossamer_rans_decode},
    {"adaptive", gossamer_adaptive_encode, gossamer_adaptive_decode},
};

template <class Symbol>
std::vector<uint8_t> encoded(const Coder& coder, const std::vector<Symbol>& symbols, int width) {
  uint8_t* out = nullptr;
  const int64_t size = coder.encode(symbols.data(), static_cast<int64_t>(symbols.size()), width, &out);
  CHECK(size >= 0);
  std::vector<uint8_t> payload(out, out + size);
  gossamer_free(out);
  return payload;
}

}  // namespace gossamer::test
