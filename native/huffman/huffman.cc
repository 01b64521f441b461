// Canonical Huffman coding. Payload: varint size of the head, the head (range-coded code lengths), then the streams.
//
// Below kFourStreams symbols there is one stream; above, four quarters of the symbols each have their own, so a
// core follows four independent chains of look-ups (three varint sizes come first). A stream's bits fill bytes
// from the low end and end on zero padding. One symbol alone needs no stream, as the count says it all: its
// payload is a zero byte and the symbol, or nothing at all for symbol 0.
#include "huffman/reference.h"

namespace gossamer::huffman {
namespace {

constexpr int64_t kFourStreams = 16384;

struct Parts {
  int64_t first[5];  // symbol i of stream k: first[k] <= i < first[k + 1]
  int streams;
};

Parts parts_of(int64_t count) {
  if (count < kFourStreams) return {{0, count, count, count, count}, 1};
  const int64_t quarter = (count + 3) / 4;
  return {{0, quarter, 2 * quarter, 3 * quarter, count}, 4};
}

Bytes head_of(range::Table table, int width) {
  if (table.size() == 1) {
    const uint32_t symbol = table[0].symbol;
    if (symbol == 0) return {};
    if (symbol < 256) return {0, static_cast<uint8_t>(symbol)};
    return {0, static_cast<uint8_t>(symbol), static_cast<uint8_t>(symbol >> 8)};
  }
  const bool sparse = range::shortest(table, width, kMostBits).sparse;
  range::Encoder coder;
  range::code_table(coder, table, width, kMostBits, sparse);
  return coder.finish();
}

template <class Symbol>
int64_t bits_of(const Symbol* symbols, int64_t count, const std::vector<Code>& codes) {
  int64_t bits = 0;
  for (int64_t i = 0; i < count; ++i) bits += codes[symbols[i]].length;
  return bits;
}

int64_t varint_size(uint64_t value) { return value < 128 ? 1 : 1 + varint_size(value >> 7); }

template <class Symbol>
void write(const Symbol* symbols, int64_t count, const std::vector<Code>& codes, uint8_t* out, const uint8_t* end) {
  uint64_t bits = 0;
  int filled = 0;
  int64_t i = 0;
  // two codes of 20 bits at most fit above 7 leftover bits; eight-byte stores stay inside the stream
  for (; i + 2 <= count && end - out >= 8; i += 2) {
    for (int k = 0; k < 2; ++k) {
      const Code code = codes[symbols[i + k]];
      bits |= uint64_t{code.bits} << filled;
      filled += static_cast<int>(code.length);
    }
    store(out, bits);
    out += filled >> 3;
    bits >>= filled & ~7;
    filled &= 7;
  }
  for (; i < count; ++i) {
    const Code code = codes[symbols[i]];
    bits |= uint64_t{code.bits} << filled;
    filled += static_cast<int>(code.length);
    for (; filled >= 8; filled -= 8, bits >>= 8) *out++ = static_cast<uint8_t>(bits);
  }
  if (filled) *out++ = static_cast<uint8_t>(bits);
}

template <class Symbol>
int64_t encode(const Symbol* symbols, int64_t count, int width, Bytes* out) {
  if (count == 0) return 0;
  const auto table = table_of(histogram(symbols, count, width));
  const Bytes head = head_of(table, width);
  if (table.size() == 1) {
    if (out) *out = head;
    return static_cast<int64_t>(head.size());
  }
  std::vector<Code> codes;
  canonical(table, codes, width);
  const Parts parts = parts_of(count);
  int64_t sizes[4], total = varint_size(head.size()) + static_cast<int64_t>(head.size());
  for (int k = 0; k < parts.streams; ++k) {
    sizes[k] = (bits_of(symbols + parts.first[k], parts.first[k + 1] - parts.first[k], codes) + 7) / 8;
    total += sizes[k] + (k < parts.streams - 1 ? varint_size(static_cast<uint64_t>(sizes[k])) : 0);
  }
  if (!out) return total;
  out->reserve(static_cast<size_t>(total));
  put_varint(*out, head.size());
  out->insert(out->end(), head.begin(), head.end());
  for (int k = 0; k + 1 < parts.streams; ++k) put_varint(*out, static_cast<uint64_t>(sizes[k]));
  size_t at = out->size();
  out->resize(static_cast<size_t>(total));
  for (int k = 0; k < parts.streams; ++k) {
    write(symbols + parts.first[k], parts.first[k + 1] - parts.first[k], codes, out->data() + at,
          out->data() + at + sizes[k]);
    at += static_cast<size_t>(sizes[k]);
  }
  return total;
}

// A look-up entry: the symbol in the low 16 bits, its code length above.
using Lookup = std::vector<uint32_t>;

Lookup lookup_of(const range::Table& table, int width, int* longest) {
  std::vector<Code> codes;
  *longest = canonical(table, codes, width);
  Lookup lookup(size_t{1} << *longest);
  for (const auto& entry : table) {
    const Code code = codes[entry.symbol];
    for (size_t i = code.bits; i < lookup.size(); i += size_t{1} << code.length)
      lookup[i] = entry.symbol | code.length << 16;
  }
  return lookup;
}

// One stream of bits. `bits` holds at least `filled` valid bits; bytes past the end read as zero.
struct Reader {
  const uint8_t* at;
  const uint8_t* end;
  uint64_t bits = 0;
  int filled = 0;

  void refill_fast() {
    bits |= load<uint64_t>(at) << filled;
    at += (63 - filled) >> 3;
    filled |= 56;
  }
  bool fast() const { return end - at >= 8; }
  template <class Symbol>
  void one(const uint32_t* lookup, uint64_t mask, Symbol* to) {
    const uint32_t entry = lookup[bits & mask];
    *to = static_cast<Symbol>(entry);
    bits >>= entry >> 16;
    filled -= static_cast<int>(entry >> 16);
  }
  template <class Symbol>
  void rest(const Lookup& lookup, uint64_t mask, Symbol* to, int64_t count) {
    // bits above `filled` may hold what refill_fast read ahead
    bits &= filled < 64 ? (uint64_t{1} << filled) - 1 : ~uint64_t{0};
    for (int64_t i = 0; i < count; ++i) {
      while (filled <= 48 && at < end) {
        bits |= uint64_t{*at++} << filled;
        filled += 8;
      }
      one(lookup.data(), mask, to + i);
      if (filled < 0) throw Error{GOSSAMER_TRUNCATED};
    }
    if (at != end || filled >= 8) throw Error{GOSSAMER_TRAILING};
    if (bits) throw Error{GOSSAMER_CORRUPT};
  }
};

template <int batch, class Symbol>
void run(const Lookup& lookup, uint64_t mask, Reader* readers, Symbol** to, int64_t* left, int streams) {
  const uint32_t* table = lookup.data();
  if (streams == 4) {
    Reader a = readers[0], b = readers[1], c = readers[2], d = readers[3];
    Symbol *p = to[0], *q = to[1], *r = to[2], *s = to[3];
    int64_t rounds = left[3] / batch;  // the last quarter is the shortest
    while (rounds > 0 && a.fast() && b.fast() && c.fast() && d.fast()) {
      a.refill_fast(), b.refill_fast(), c.refill_fast(), d.refill_fast();
      for (int k = 0; k < batch; ++k) {
        a.one(table, mask, p++);
        b.one(table, mask, q++);
        c.one(table, mask, r++);
        d.one(table, mask, s++);
      }
      --rounds;
    }
    readers[0] = a, readers[1] = b, readers[2] = c, readers[3] = d;
    left[0] -= p - to[0], left[1] -= q - to[1], left[2] -= r - to[2], left[3] -= s - to[3];
    to[0] = p, to[1] = q, to[2] = r, to[3] = s;
  }
  for (int k = 0; k < streams; ++k) {
    Reader reader = readers[k];
    for (; left[k] >= batch && reader.fast(); left[k] -= batch) {
      reader.refill_fast();
      for (int j = 0; j < batch; ++j) reader.one(table, mask, to[k]++);
    }
    reader.rest(lookup, mask, to[k], left[k]);
  }
}

template <class Symbol>
void decode(const uint8_t* payload, int64_t size, Symbol* symbols, int64_t count, int width) {
  const uint8_t *at = payload, *end = payload + size;
  range::Table table;
  if (size == 0 || *at == 0) {
    if (size > 3) throw Error{GOSSAMER_TRAILING};
    const uint32_t symbol = (size > 1 ? at[1] : 0u) | (size > 2 ? at[2] << 8 : 0u);
    if (symbol >> width || size == 1 || (size > 1 && at[size - 1] == 0)) throw Error{GOSSAMER_CORRUPT};
    return fill(symbols, count, symbol);
  }
  const uint64_t head = get_varint(at, end);
  if (head > static_cast<uint64_t>(end - at)) throw Error{GOSSAMER_TRUNCATED};
  range::Decoder coder(at, static_cast<int64_t>(head));
  range::code_table(coder, table, width, kMostBits, false);
  coder.finish();
  at += head;
  if (table.size() < 2) throw Error{GOSSAMER_CORRUPT};
  int longest = 0;
  const Lookup lookup = lookup_of(table, width, &longest);
  const Parts parts = parts_of(count);
  int64_t sizes[4], sum = 0;
  for (int k = 0; k + 1 < parts.streams; ++k) {
    const uint64_t one = get_varint(at, end);
    if (one > static_cast<uint64_t>(size)) throw Error{GOSSAMER_TRUNCATED};
    sum += sizes[k] = static_cast<int64_t>(one);
  }
  sizes[parts.streams - 1] = end - at - sum;
  if (sizes[parts.streams - 1] < 0) throw Error{GOSSAMER_TRUNCATED};
  Reader readers[4];
  Symbol* to[4];
  int64_t left[4];
  for (int k = 0; k < parts.streams; ++k) {
    readers[k] = {at, at + sizes[k]};
    at += sizes[k];
    to[k] = symbols + parts.first[k];
    left[k] = parts.first[k + 1] - parts.first[k];
  }
  const uint64_t mask = lookup.size() - 1;
  // a refill leaves at least 56 bits
  if (longest <= 11) return run<5>(lookup, mask, readers, to, left, parts.streams);
  if (longest <= 14) return run<4>(lookup, mask, readers, to, left, parts.streams);
  if (longest <= 18) return run<3>(lookup, mask, readers, to, left, parts.streams);
  return run<2>(lookup, mask, readers, to, left, parts.streams);
}

}  // namespace
}  // namespace gossamer::huffman

using namespace gossamer;

extern "C" {

int64_t gossamer_huffman_encode(const void* symbols, int64_t count, int32_t width, uint8_t** out) {
  if (!valid(symbols, count, width) || !out) return GOSSAMER_BAD_ARGUMENT;
  return typed(symbols, width, [&](auto* typed_symbols) -> int64_t {
    Bytes payload;
    huffman::encode(typed_symbols, count, width, &payload);
    return hand_over(payload, out);
  });
}

int64_t gossamer_huffman_cost(const void* symbols, int64_t count, int32_t width) {
  if (!valid(symbols, count, width)) return GOSSAMER_BAD_ARGUMENT;
  return typed(symbols, width,
               [&](auto* typed_symbols) { return huffman::encode(typed_symbols, count, width, nullptr); });
}

int64_t gossamer_huffman_table_bytes(const void* symbols, int64_t count, int32_t width) {
  if (!valid(symbols, count, width)) return GOSSAMER_BAD_ARGUMENT;
  if (count == 0) return 0;
  return typed(symbols, width, [&](auto* typed_symbols) -> int64_t {
    const auto table = huffman::table_of(histogram(typed_symbols, count, width));
    const auto head = static_cast<int64_t>(huffman::head_of(table, width).size());
    return table.size() == 1 ? head : head + huffman::varint_size(static_cast<uint64_t>(head));
  });
}

int64_t gossamer_huffman_lengths(const int64_t* counts, int32_t width, uint8_t* lengths) {
  if (!counts || !lengths || width < 1 || width > 16) return GOSSAMER_BAD_ARGUMENT;
  return guarded([&]() -> int64_t {
    const size_t size = size_t{1} << width;
    const auto table = huffman::table_of(std::vector<int64_t>(counts, counts + size));
    std::fill(lengths, lengths + size, uint8_t{0});
    int64_t bits = 0;
    if (table.size() < 2) return bits;
    for (const auto& entry : table) {
      lengths[entry.symbol] = static_cast<uint8_t>(entry.value);
      bits += counts[entry.symbol] * entry.value;
    }
    return bits;
  });
}

int64_t gossamer_huffman_decode(const uint8_t* payload, int64_t size, void* symbols, int64_t count,
                                int32_t width) {
  if (!valid(symbols, count, width) || size < 0 || (!payload && size)) return GOSSAMER_BAD_ARGUMENT;
  if (count == 0) return size ? GOSSAMER_TRAILING : 0;
  return typed(symbols, width, [&](auto* typed_symbols) -> int64_t {
    huffman::decode(payload, size, typed_symbols, count, width);
    return 0;
  });
}

}  // extern "C"
