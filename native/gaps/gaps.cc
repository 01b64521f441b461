// Positions <-> gap symbols. The loops are bound by memory: one pass, no branch that depends on the data except
// the escape, which is rare at a well chosen width.
#include "gaps/reference.h"
#include "symbols.h"

namespace {

bool valid_width(int32_t width) { return width >= 1 && width <= 16; }
int64_t escape_of(int32_t width) { return (int64_t{1} << width) - 1; }

}  // namespace

extern "C" {

int64_t gossamer_gaps_count(const int64_t* positions, int64_t entries, int64_t total, int32_t width) {
  if (!valid_width(width) || entries < 0 || total < 0 || (!positions && entries)) return GOSSAMER_BAD_ARGUMENT;
  const int64_t escape = escape_of(width);
  int64_t count = entries, before = -1;
  for (int64_t j = 0; j < entries; ++j) {
    const int64_t position = positions[j];
    if (position <= before) return before < 0 ? GOSSAMER_OUT_OF_RANGE : GOSSAMER_UNSORTED;
    const int64_t gap = position - before - 1;
    if (gap >= escape) count += gap / escape;
    before = position;
  }
  return before < total ? count : int64_t{GOSSAMER_OUT_OF_RANGE};
}

// `positions` passed gossamer_gaps_count, whose answer is `count`.
int64_t gossamer_gaps_encode(const int64_t* positions, int64_t entries, int64_t total, int32_t width,
                             uint16_t* symbols, int64_t count) {
  if (!valid_width(width) || entries < 0 || total < 0 || (!positions && entries) || (!symbols && count))
    return GOSSAMER_BAD_ARGUMENT;
  const int64_t escape = escape_of(width);
  const uint16_t* end = symbols + count;
  int64_t at = 0;
  for (int64_t j = 0; j < entries; ++j) {
    int64_t gap = positions[j] - at;
    if (gap < 0) return GOSSAMER_UNSORTED;
    for (; gap >= escape; gap -= escape) {
      if (symbols == end) return GOSSAMER_BAD_ARGUMENT;
      *symbols++ = static_cast<uint16_t>(escape);
    }
    if (symbols == end) return GOSSAMER_BAD_ARGUMENT;
    *symbols++ = static_cast<uint16_t>(gap);
    at = positions[j] + 1;
  }
  return symbols == end ? 0 : GOSSAMER_BAD_ARGUMENT;
}

int64_t gossamer_gaps_entries(const uint16_t* symbols, int64_t count, int32_t width, int64_t total) {
  if (!valid_width(width) || count < 0 || total < 0 || (!symbols && count)) return GOSSAMER_BAD_ARGUMENT;
  const uint32_t escape = static_cast<uint32_t>(escape_of(width));
  int64_t skipped = 0, entries = 0;
  uint32_t most = 0;
  // blocks keep the sums in 32 bits, which vectorises twice as wide
  for (int64_t from = 0; from < count; from += 32768) {
    const int64_t to = from + 32768 < count ? from + 32768 : count;
    uint32_t sum = 0, found = 0;
    for (int64_t i = from; i < to; ++i) {
      sum += symbols[i];
      found += symbols[i] != escape;
      most = symbols[i] > most ? symbols[i] : most;
    }
    skipped += sum;
    entries += found;
  }
  if (most > escape || skipped > total - entries) return GOSSAMER_OUT_OF_RANGE;
  return entries;
}

// `symbols` passed gossamer_gaps_entries, whose answer is `entries`.
int64_t gossamer_gaps_decode(const uint16_t* symbols, int64_t count, int32_t width, int64_t total,
                             int64_t* positions, int64_t entries) {
  if (gossamer_gaps_entries(symbols, count, width, total) != entries || (!positions && entries))
    return GOSSAMER_OUT_OF_RANGE;
  const int64_t escape = escape_of(width);
  int64_t at = 0, found = 0;
  for (int64_t i = 0; i < count && found < entries; ++i) {
    const int64_t gap = symbols[i];
    at += gap;
    positions[found] = at;  // an escape is overwritten by the entry that follows it
    const bool entry = gap != escape;
    found += entry;
    at += entry;
  }
  return 0;
}

int64_t gossamer_gaps_histogram(const int64_t* positions, int64_t entries, int64_t limit, int64_t* counts) {
  if (entries < 0 || limit < 0 || !counts || (!positions && entries)) return GOSSAMER_BAD_ARGUMENT;
  for (int64_t g = 0; g <= limit; ++g) counts[g] = 0;
  int64_t before = -1;
  for (int64_t j = 0; j < entries; ++j) {
    const int64_t gap = positions[j] - before - 1;
    if (gap < 0) return GOSSAMER_UNSORTED;
    ++counts[gap < limit ? gap : limit];
    before = positions[j];
  }
  return 0;
}

}  // extern "C"
