// What the coders share: typed access to symbols, little-endian words, histograms, and the C boundary.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#include "gossamer.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "libgossamer reads words in place and needs a little-endian machine"
#endif

namespace gossamer {

using Bytes = std::vector<uint8_t>;

struct Error {
  int64_t code;
};

inline bool valid(const void* symbols, int64_t count, int32_t width) {
  return width >= 1 && width <= 16 && count >= 0 && (symbols || count == 0) && count < (int64_t{1} << 48);
}

template <class Word>
inline Word load(const uint8_t* from) {
  Word word;
  std::memcpy(&word, from, sizeof word);
  return word;
}

template <class Word>
inline void store(uint8_t* to, Word word) {
  std::memcpy(to, &word, sizeof word);
}

inline int bit_length(uint64_t value) {
#if defined(__GNUC__) || defined(__clang__)
  return value ? 64 - __builtin_clzll(value) : 0;
#else
  int bits = 0;
  while (value) ++bits, value >>= 1;
  return bits;
#endif
}

// The C boundary: what the work throws becomes an error code.
template <class Work>
int64_t guarded(Work work) {
  try {
    return work();
  } catch (const Error& error) {
    return error.code;
  } catch (const std::bad_alloc&) {
    return GOSSAMER_NO_MEMORY;
  }
}

// Calls work with a pointer to symbols of their type in memory.
template <class Work>
int64_t typed(const void* symbols, int32_t width, Work work) {
  return guarded([&]() -> int64_t {
    return width <= 8 ? work(static_cast<const uint8_t*>(symbols)) : work(static_cast<const uint16_t*>(symbols));
  });
}

template <class Work>
int64_t typed(void* symbols, int32_t width, Work work) {
  return guarded([&]() -> int64_t {
    return width <= 8 ? work(static_cast<uint8_t*>(symbols)) : work(static_cast<uint16_t*>(symbols));
  });
}

// Four counters per symbol: neighbouring equal symbols would otherwise wait for each other's store.
template <class Symbol>
std::vector<int64_t> histogram(const Symbol* symbols, int64_t count, int width) {
  constexpr int64_t bins = int64_t{1} << (8 * sizeof(Symbol));
  std::vector<int64_t> counts(bins, 0);
  if (sizeof(Symbol) == 1 && count >= 4096) {
    std::vector<int64_t> more(3 * bins, 0);
    int64_t* one = more.data();
    int64_t i = 0;
    for (; i + 4 <= count; i += 4) {
      ++counts[symbols[i]];
      ++one[symbols[i + 1]];
      ++one[bins + symbols[i + 2]];
      ++one[2 * bins + symbols[i + 3]];
    }
    for (; i < count; ++i) ++counts[symbols[i]];
    for (int64_t b = 0; b < bins; ++b) counts[b] += one[b] + one[bins + b] + one[2 * bins + b];
  } else {
    for (int64_t i = 0; i < count; ++i) ++counts[symbols[i]];
  }
  for (int64_t b = int64_t{1} << width; b < bins; ++b)
    if (counts[b]) throw Error{GOSSAMER_OUT_OF_RANGE};
  counts.resize(size_t{1} << width);
  return counts;
}

template <class Symbol>
void fill(Symbol* symbols, int64_t count, uint32_t value) {
  for (int64_t i = 0; i < count; ++i) symbols[i] = static_cast<Symbol>(value);
}

// Hands a finished payload to the caller, who frees it.
inline int64_t hand_over(const Bytes& payload, uint8_t** out) {
  *out = static_cast<uint8_t*>(std::malloc(payload.empty() ? 1 : payload.size()));
  if (!*out) return GOSSAMER_NO_MEMORY;
  if (!payload.empty()) std::memcpy(*out, payload.data(), payload.size());
  return static_cast<int64_t>(payload.size());
}

inline void put_varint(Bytes& out, uint64_t value) {
  for (; value >= 128; value >>= 7) out.push_back(static_cast<uint8_t>(value | 128));
  out.push_back(static_cast<uint8_t>(value));
}

inline uint64_t get_varint(const uint8_t*& at, const uint8_t* end) {
  uint64_t value = 0;
  for (int shift = 0; shift < 56; shift += 7) {
    if (at == end) throw Error{GOSSAMER_TRUNCATED};
    const uint8_t byte = *at++;
    value |= uint64_t{byte & 127u} << shift;
    if (byte < 128) return value;
  }
  throw Error{GOSSAMER_CORRUPT};
}

}  // namespace gossamer
