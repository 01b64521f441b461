// Every operation against its plain reference, and every CPU variant against the portable one.
#include <cstring>

#include "bitpack/reference.h"
#include "cpu.h"
#include "gaps/reference.h"
#include "huffman/reference.h"
#include "rans/reference.h"
#include "scatter/reference.h"
#include "test/binary.h"
#include "test/check.h"
#include "test/sparse.h"
#include "test/ternary.h"
#include "test/ternary_int8.h"

using namespace gossamer;
using namespace gossamer::test;

namespace {

void a_name_asks_for_at_most_its_variant() {
  const char* const names[] = {"portable", "neon", "avx2", "avx512"};
  const auto running = [&] {
    int at = 0;
    while (std::strcmp(gossamer_isa(), names[at]) != 0) ++at;
    return at;
  };
  gossamer_set_isa("");
  const int best = running();
  for (int i = 0, least = 0; i < 4; ++i) {
    CHECK(gossamer_set_isa(names[i]) == 0);
    const int found = running();
    CHECK(found >= least && found <= i && found <= best);
    CHECK(i < best || found == best);
    least = found;
  }
  CHECK(gossamer_set_isa("sse9") == GOSSAMER_BAD_ARGUMENT);
  gossamer_set_isa("");
#ifdef GOSSAMER_NEON
  CHECK(std::strcmp(gossamer_isa(), "neon") == 0);
#endif
}

template <class Symbol>
void every_coder_gives_back_its_symbols(Random& random, int64_t count, int width) {
  const auto symbols = field<Symbol>(random, count, width);
  for (const auto& coder : coders) {
    const auto payload = encoded(coder, symbols, width);
    for (const char* variant : variants()) {
      gossamer_set_isa(variant);
      std::vector<Symbol> back(symbols.size());
      const auto size = static_cast<int64_t>(payload.size());
      CHECK(coder.decode(payload.data(), size, back.data(), count, width) >= 0);
      CHECK(back == symbols);
      if (coder.decode == gossamer_bitpack_decode && size)
        CHECK(coder.decode(payload.data(), size - 1, back.data(), count, width) == GOSSAMER_TRUNCATED);
      // a range-coded message may take what follows for its own zeros; the other two know their end
      if (coder.decode == gossamer_bitpack_decode || coder.decode == gossamer_huffman_decode) {
        auto longer = payload;
        longer.resize(payload.size() + 16, 1);
        CHECK(coder.decode(longer.data(), size + 16, back.data(), count, width) < 0);
      }
    }
  }
}

template <class Symbol>
void bit_packing_equals_its_reference(Random& random, int64_t count, int width) {
  const auto symbols = field<Symbol>(random, count, width);
  const auto size = static_cast<size_t>((count * width + 7) / 8);
  std::vector<uint8_t> fast(size), plain(size);
  CHECK(gossamer_bitpack_encode(symbols.data(), count, width, fast.data()) == static_cast<int64_t>(size));
  bitpack::reference_pack(symbols.data(), count, width, plain.data());
  CHECK(fast == plain);
  std::vector<Symbol> back(symbols.size());
  bitpack::reference_unpack(plain.data(), back.data(), count, width);
  CHECK(back == symbols);
}

// A payload of one stream is its head and then bits that the definition can read.
void huffman_streams_follow_the_canonical_code(Random& random, int64_t count, int width) {
  const auto symbols = field<uint8_t>(random, count, width);
  const auto table = huffman::table_of(histogram(symbols.data(), count, width));
  if (table.size() < 2 || count >= 16384) return;
  const auto payload = encoded(coders[1], symbols, width);
  const auto head = gossamer_huffman_table_bytes(symbols.data(), count, width);
  std::vector<uint8_t> back(symbols.size());
  const int64_t bits = huffman::reference_decode(table, payload.data() + head,
                                                 static_cast<int64_t>(payload.size()) - head, back.data(), count, width);
  CHECK(back == symbols);
  CHECK((bits + 7) / 8 + head == static_cast<int64_t>(payload.size()));
}

void fast_rows_equal_the_reference(Random& random, int precision) {
  range::Table steps;
  for (uint32_t s = 0; s < 64; ++s) steps.push_back({s, 1 + static_cast<uint32_t>(random() % 40)});
  const auto table = rans::fast_table(rans::model_of(steps, precision));
  std::vector<uint8_t> words(1 << 14);
  for (auto& byte : words) byte = static_cast<uint8_t>(random());
  rans::FastState start{&table, {}, words.data(), words.data() + words.size()};
  for (auto& x : start.x) x = rans::kFastLow + static_cast<uint32_t>(random() >> 33);
  const int64_t rows = 64;
  auto plain = start;
  std::vector<uint8_t> expected(rows * rans::kFastLanes);
  rans::reference_fast(plain, expected.data(), rows * rans::kFastLanes);
  rans::FastRows all[] = {rans::fast_rows_portable, rans::fast_rows_portable, rans::fast_rows_portable};
#ifdef GOSSAMER_X86
  if (std::strcmp(gossamer_isa(), "portable") != 0) all[1] = rans::fast_rows_avx2;
  if (std::strcmp(gossamer_isa(), "avx512") == 0) all[2] = rans::fast_rows_avx512;
#endif
  for (auto rows_of : all) {
    auto state = start;
    std::vector<uint8_t> symbols(expected.size());
    CHECK(rows_of(state, symbols.data(), rows) == rows);
    CHECK(symbols == expected);
    CHECK(state.at == plain.at);
    CHECK(std::memcmp(state.x, plain.x, sizeof state.x) == 0);
  }
}

void gaps_and_scatter_equal_their_references(Random& random, int64_t total, int width) {
  std::vector<int64_t> positions;
  const uint64_t sparsity = 1 + random() % 300;
  for (int64_t i = 0; i < total; ++i)
    if (random() % sparsity == 0) positions.push_back(i);
  const auto entries = static_cast<int64_t>(positions.size());
  const auto symbols = gaps::reference_encode(positions.data(), entries, width);
  const auto count = static_cast<int64_t>(symbols.size());
  CHECK(gossamer_gaps_count(positions.data(), entries, total, width) == count);
  std::vector<uint16_t> fast(symbols.size());
  CHECK(gossamer_gaps_encode(positions.data(), entries, total, width, fast.data(), count) == 0);
  CHECK(fast == symbols);
  CHECK(gossamer_gaps_entries(symbols.data(), count, width, total) == entries);
  std::vector<int64_t> back(positions.size());
  CHECK(gossamer_gaps_decode(symbols.data(), count, width, total, back.data(), entries) == 0);
  CHECK(back == positions && gaps::reference_decode(symbols.data(), count, width) == positions);

  std::vector<float> values(positions.size()), dense(total, 7.0f), plain(total);
  for (auto& value : values) value = static_cast<float>(random() % 1000) - 500.0f;
  CHECK(gossamer_scatter(symbols.data(), count, width, values.data(), entries, dense.data(), total) == 0);
  scatter::reference_scatter(symbols.data(), count, width, values.data(), plain.data(), total);
  CHECK(dense == plain);
}

void lookup_equals_its_reference(Random& random, int64_t count, int64_t size) {
  std::vector<float> centroids(static_cast<size_t>(size));
  for (auto& centroid : centroids) centroid = static_cast<float>(random() % 1000) / 7.0f;
  std::vector<uint8_t> codes(static_cast<size_t>(count));
  for (auto& code : codes) code = static_cast<uint8_t>(random() % static_cast<uint64_t>(size));
  std::vector<float> dense(codes.size()), plain(codes.size());
  scatter::reference_lookup(codes.data(), count, centroids.data(), plain.data());
  for (const char* variant : variants()) {
    gossamer_set_isa(variant);
    CHECK(gossamer_lookup(codes.data(), count, 8, centroids.data(), size, dense.data()) == 0);
    CHECK(dense == plain);
  }
  if (count) CHECK(gossamer_lookup(codes.data(), count, 8, centroids.data(), codes[0], dense.data()) < 0);
}

}  // namespace

int main() {
  a_name_asks_for_at_most_its_variant();
  Random random(1);
  for (int width = 1; width <= 16; ++width)
    for (int64_t count : {0, 1, 2, 7, 8, 31, 33, 1000, 16383, 16385, 70001}) {
      for (int round = 0; round < (count < 1000 ? 8 : 2); ++round) {
        if (width <= 8) {
          every_coder_gives_back_its_symbols<uint8_t>(random, count, width);
          bit_packing_equals_its_reference<uint8_t>(random, count, width);
          if (count && count <= 1000) huffman_streams_follow_the_canonical_code(random, count, width);
        } else {
          every_coder_gives_back_its_symbols<uint16_t>(random, count, width);
          bit_packing_equals_its_reference<uint16_t>(random, count, width);
        }
      }
      gossamer_set_isa("");
      gaps_and_scatter_equal_their_references(random, count, width);
    }
  gossamer_set_isa("");
  for (int precision = 7; precision <= 14; ++precision) fast_rows_equal_the_reference(random, precision);
  for (int64_t count : {0, 1, 15, 16, 17, 1000})
    for (int64_t size : {1, 8, 15, 16, 17, 32, 33, 256}) lookup_equals_its_reference(random, count, size);
  sparse_products_equal_their_reference(random);
  long_runs_touch_no_value(random);
  damaged_sparse_fields_are_refused_or_harmless(random, 3000);
  packing_refuses_what_does_not_fit();
  binary_convolutions_equal_their_reference(random, 300);
  impossible_geometries_are_refused();
  ternary_products_equal_their_reference(random);
  ternary_convolutions_equal_their_reference(random, 200);
  damaged_ternary_fields_are_refused_or_harmless(random, 3000);
  ternary_integers_equal_their_reference(random, 200);
  std::puts("native tests: all hold");
  return 0;
}
