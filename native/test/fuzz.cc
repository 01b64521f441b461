// Feeds damaged streams to every decoder. Built with the sanitizers (make sanitize), any access out of range ends it.
//
//     gossamer_fuzz ROUNDS SEED     streams of the encoders, cut, extended and changed
//     gossamer_fuzz FILE ...        the given payloads as they are, at every width
// Buffers are sized exactly, so that one byte too far is seen; what the decoders answer is not judged.
#include <cstring>
#include <fstream>
#include <iterator>

#include "test/check.h"

using namespace gossamer::test;

namespace {

void decode_all(const std::vector<uint8_t>& payload, int64_t count, int width) {
  const auto size = static_cast<int64_t>(payload.size());
  for (const auto& coder : coders) {
    std::vector<uint8_t> symbols(static_cast<size_t>(count) * (width <= 8 ? 1 : 2));
    coder.decode(payload.data(), size, symbols.data(), count, width);
  }
  // the same bytes as gap symbols and as codes
  std::vector<uint16_t> gaps(payload.size() / 2);
  if (!gaps.empty()) std::memcpy(gaps.data(), payload.data(), 2 * gaps.size());
  for (auto& gap : gaps) gap = static_cast<uint16_t>(gap & ((2u << width) - 1));  // now and then one too large
  const auto gap_count = static_cast<int64_t>(gaps.size());
  const int64_t entries = gossamer_gaps_entries(gaps.data(), gap_count, width, count);
  const int64_t guess = entries < 0 ? gap_count / 2 : entries;
  std::vector<int64_t> positions(static_cast<size_t>(guess));
  gossamer_gaps_decode(gaps.data(), gap_count, width, count, positions.data(), guess);
  std::vector<float> values(static_cast<size_t>(guess)), dense(static_cast<size_t>(count));
  gossamer_scatter(gaps.data(), gap_count, width, values.data(), guess, dense.data(), count);
  std::vector<float> centroids(1 + payload.size() % 256), looked(payload.size());
  gossamer_lookup(payload.data(), size, 8, centroids.data(), static_cast<int64_t>(centroids.size()), looked.data());
}

void damage(std::vector<uint8_t>& payload, Random& random) {
  for (uint64_t changes = random() % 4; changes > 0 && !payload.empty(); --changes) {
    const size_t at = random() % 3 ? random() % payload.size() : random() % (payload.size() < 16 ? payload.size() : 16);
    payload[at] = static_cast<uint8_t>(random() % 2 ? random() : payload[at] ^ 1u << random() % 8);
  }
  if (random() % 4 == 0 && !payload.empty()) payload.resize(random() % payload.size());
  if (random() % 8 == 0) payload.resize(payload.size() + random() % 40, static_cast<uint8_t>(random()));
}

template <class Symbol>
void one_round(Random& random, int width) {
  const int64_t sizes[] = {1, 5, 40, 300, 3000, 20000, 70000};
  const int64_t count = 1 + static_cast<int64_t>(random() % static_cast<uint64_t>(sizes[random() % 7]));
  const auto symbols = field<Symbol>(random, count, width);
  const auto clean = encoded(coders[random() % 4], symbols, width);
  for (const char* variant : variants()) {
    gossamer_set_isa(variant);
    auto payload = clean;
    damage(payload, random);
    decode_all(payload, random() % 3 ? count : 1 + static_cast<int64_t>(random() % 70000), width);
  }
}

}  // namespace

int main(int argc, char** argv) {
  char* rest = nullptr;
  const long rounds = argc > 1 ? std::strtol(argv[1], &rest, 10) : 1000;
  if (argc > 1 && *rest) {
    for (int i = 1; i < argc; ++i) {
      std::ifstream file(argv[i], std::ios::binary);
      const std::vector<uint8_t> payload{std::istreambuf_iterator<char>(file), {}};
      for (int width = 1; width <= 16; ++width)
        for (int64_t count : {0, 1, 33, 1000, 70000}) decode_all(payload, count, width);
    }
    return 0;
  }
  Random random(argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1);
  for (long round = 0; round < rounds; ++round) {
    const int width = 1 + static_cast<int>(random() % 16);
    width <= 8 ? one_round<uint8_t>(random, width) : one_round<uint16_t>(random, width);
  }
  std::printf("fuzz: %ld rounds, nothing out of range\n", rounds);
  return 0;
}
