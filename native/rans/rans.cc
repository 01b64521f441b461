// Static entropy coding in three forms that share model.h; the form is the first thing the payload says.
//
//   small   table and symbols in one range-coded message: no state to store, for fields of up to some kilobytes
//   wide    wide.h: four 64-bit states, any alphabet, precision up to 30 bits
//   fast    fast.h: thirty-two 32-bit states, up to 256 symbols, precision up to 14 bits
// In the last two the head (form, its own size, precision, table) is a range-coded message before the states.
#include "cpu.h"
#include "rans/reference.h"
#include "rans/wide.h"

namespace gossamer::rans {
namespace {

enum class Form : uint32_t { small, wide, fast };

// A state wastes some three bytes of fast and six of wide; below these sizes the bytes matter more than the speed.
constexpr double kWideBits = 8 * 8192, kFastBits = 8 * 36864;
constexpr int kFormBits = 16;  // small owns all but two of 2^16 parts, so it costs nothing

struct Chosen {
  Form form = Form::small;
  Plan plan;
};

Chosen choose(const Counted& counts, int width) {
  Chosen chosen;
  if (counts.symbol.size() < 2) {
    chosen.plan.table.push_back({counts.symbol[0], 1});
    return chosen;
  }
  if (counts.entropy_bits >= kFastBits && width <= 8) {
    chosen.form = Form::fast;
    // one look-up per symbol costs at most 0.05 % more bytes, two at most 0.25 %; else wide
    chosen.plan = plan(counts, width, 8, kPackedPrecision);
    if (chosen.plan.data <= 1.0005 * counts.entropy_bits) return chosen;
    chosen.plan = plan(counts, width, 8, kFastPrecision);
    if (chosen.plan.data <= 1.0025 * counts.entropy_bits) return chosen;
  }
  chosen.plan = plan(counts, width, kLeastPrecision, kMostPrecision);
  chosen.form = counts.entropy_bits >= kWideBits ? Form::wide : Form::small;
  return chosen;
}

void write_head(range::Encoder& coder, Form form, uint32_t size, const Plan& plan, int width) {
  const uint32_t parts = (1u << kFormBits) - 2;
  if (form == Form::small) {
    coder.put(0, parts, kFormBits);
  } else {
    coder.put(parts + (form == Form::fast), 1, kFormBits);
    range::raw(coder, 24, size);
  }
  range::Table table = plan.table;
  range::code_table(coder, table, width, kMostStep, plan.head.sparse);
  if (table.size() > 1) range::raw(coder, 5, static_cast<uint32_t>(plan.model.precision));
}

Bytes head_bytes(const Chosen& chosen, int width) {
  uint32_t size = 0;
  Bytes head;
  // the size the head states does not change its own length by more than a byte: settle it
  for (int round = 0; round < 4; ++round) {
    range::Encoder coder;
    write_head(coder, chosen.form, size, chosen.plan, width);
    head = coder.finish(chosen.form != Form::small);
    if (head.size() <= size) break;
    size = static_cast<uint32_t>(head.size());
  }
  head.resize(std::max<size_t>(head.size(), chosen.form == Form::small ? 0 : size));
  return head;
}

template <class Symbol>
void encode_fast(const Symbol* symbols, int64_t count, const Model& model, Bytes& out) {
  struct Slot {
    uint32_t cum, freq;
  };
  Slot slots[256] = {};
  for (size_t k = 0; k < model.size(); ++k) slots[model.symbol[k]] = {model.cum[k], model.freq(k)};
  const int n = model.precision;
  uint32_t states[kFastLanes];
  std::fill(states, states + kFastLanes, kFastLow);
  std::vector<uint16_t> words(static_cast<size_t>(count));
  uint16_t* next = words.data();
  for (int64_t i = count; i-- > 0;) {
    uint32_t x = states[i % kFastLanes];
    const Slot slot = slots[symbols[i]];
    *next = static_cast<uint16_t>(x);
    const bool full = x >> (32 - n) >= slot.freq;
    next += full;
    x = full ? x >> 16 : x;
    states[i % kFastLanes] = ((x / slot.freq) << n) + x % slot.freq + slot.cum;
  }
  const size_t at = out.size(), used = static_cast<size_t>(next - words.data());
  out.resize(at + 4 * kFastLanes + 2 * used);
  for (int lane = 0; lane < kFastLanes; ++lane) store(out.data() + at + 4 * lane, states[lane]);
  uint8_t* to = out.data() + at + 4 * kFastLanes;
  for (size_t i = used; i-- > 0; to += 2) store(to, words[i]);
}

template <class Symbol>
Bytes encode(const Symbol* symbols, int64_t count, int width) {
  if (count == 0) return {};
  const Chosen chosen = choose(counted(histogram(symbols, count, width)), width);
  const Model& model = chosen.plan.model;
  if (chosen.form == Form::small) {
    range::Encoder coder;
    write_head(coder, Form::small, 0, chosen.plan, width);
    if (model.size() > 1) {
      struct Slot {
        uint32_t cum, freq;
      };
      std::vector<Slot> slots(size_t{1} << width);
      for (size_t k = 0; k < model.size(); ++k) slots[model.symbol[k]] = {model.cum[k], model.freq(k)};
      for (int64_t i = 0; i < count; ++i) coder.put(slots[symbols[i]].cum, slots[symbols[i]].freq, model.precision);
    }
    return coder.finish();
  }
  Bytes out = head_bytes(chosen, width);
  if (chosen.form == Form::fast) {
    encode_fast(symbols, count, model, out);
  } else {
    encode_wide(symbols, count, width, model, out);
  }
  return out;
}

FastRows fast_rows() {
#ifdef GOSSAMER_X86
  if (isa() == Isa::avx512) return fast_rows_avx512;
  if (isa() == Isa::avx2) return fast_rows_avx2;
#endif
  return fast_rows_portable;
}

void decode_fast(const uint8_t* at, int64_t size, uint8_t* symbols, int64_t count, const Model& model) {
  if (size < 4 * kFastLanes) throw Error{GOSSAMER_TRUNCATED};
  const FastTable table = fast_table(model);
  FastState state{&table, {}, at + 4 * kFastLanes, at + size};
  std::memcpy(state.x, at, sizeof state.x);
  const int64_t rows = fast_rows()(state, symbols, count / kFastLanes);
  reference_fast(state, symbols + rows * kFastLanes, count - rows * kFastLanes);
  if (state.at != state.end) throw Error{GOSSAMER_TRAILING};
  for (uint32_t x : state.x)
    if (x != kFastLow) throw Error{GOSSAMER_CORRUPT};
}

template <class Symbol>
void decode(const uint8_t* payload, int64_t size, Symbol* symbols, int64_t count, int width) {
  range::Decoder coder(payload, size);
  const uint32_t parts = (1u << kFormBits) - 2, slot = coder.peek(kFormBits);
  const Form form = slot < parts ? Form::small : slot == parts ? Form::wide : Form::fast;
  uint32_t head = 0;
  if (form == Form::small) {
    coder.take(0, parts);
  } else {
    coder.take(slot, 1);
    head = range::raw(coder, 24, 0);
    if (head > size) throw Error{GOSSAMER_TRUNCATED};
  }
  range::Table table;
  range::code_table(coder, table, width, kMostStep, false);
  if (table.size() == 1) {
    if (form != Form::small) throw Error{GOSSAMER_CORRUPT};
    coder.finish();
    return fill(symbols, count, table[0].symbol);
  }
  const int precision = static_cast<int>(range::raw(coder, 5, 0));
  if (precision < kLeastPrecision || precision > kMostPrecision || !fits(table.size(), precision))
    throw Error{GOSSAMER_CORRUPT};
  const Model model = model_of(table, precision);
  if (form == Form::wide) return decode_wide(payload + head, size - head, symbols, count, model);
  if (form == Form::fast) {
    if constexpr (sizeof(Symbol) == 1) {
      if (!fits_fast(model)) throw Error{GOSSAMER_CORRUPT};
      return decode_fast(payload + head, size - head, symbols, count, model);
    } else {
      throw Error{GOSSAMER_CORRUPT};
    }
  }
  const Finder find(model);
  for (int64_t i = 0; i < count; ++i) {
    const size_t k = find(coder.peek(precision));
    coder.take(model.cum[k], model.freq(k));
    symbols[i] = static_cast<Symbol>(model.symbol[k]);
  }
  coder.finish();
}

}  // namespace
}  // namespace gossamer::rans

using namespace gossamer;

extern "C" {

int64_t gossamer_rans_encode(const void* symbols, int64_t count, int32_t width, uint8_t** out) {
  if (!valid(symbols, count, width) || !out) return GOSSAMER_BAD_ARGUMENT;
  return typed(symbols, width, [&](auto* typed_symbols) -> int64_t {
    return hand_over(rans::encode(typed_symbols, count, width), out);
  });
}

int64_t gossamer_rans_table_bytes(const void* symbols, int64_t count, int32_t width) {
  if (!valid(symbols, count, width)) return GOSSAMER_BAD_ARGUMENT;
  if (count == 0) return 0;
  return typed(symbols, width, [&](auto* typed_symbols) -> int64_t {
    const auto chosen = rans::choose(rans::counted(histogram(typed_symbols, count, width)), width);
    return static_cast<int64_t>(rans::head_bytes(chosen, width).size());
  });
}

int64_t gossamer_rans_decode(const uint8_t* payload, int64_t size, void* symbols, int64_t count, int32_t width) {
  if (!valid(symbols, count, width) || size < 0 || (!payload && size)) return GOSSAMER_BAD_ARGUMENT;
  if (count == 0) return size ? GOSSAMER_TRAILING : 0;
  return typed(symbols, width, [&](auto* typed_symbols) -> int64_t {
    rans::decode(payload, size, typed_symbols, count, width);
    return 0;
  });
}

}  // extern "C"
