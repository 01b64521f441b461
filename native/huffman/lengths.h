// Code lengths of an optimal prefix code, none above a limit, and the canonical codes they imply.
#pragma once

#include <algorithm>
#include <numeric>

#include "range/table.h"
#include "symbols.h"

namespace gossamer::huffman {

// 15 bits for alphabets of up to 2048 symbols; larger ones need longer codes to stay near the entropy.
constexpr int kMostBits = 20;
inline int limit_for(size_t alphabet) { return std::min(kMostBits, std::max(15, bit_length(alphabet - 1) + 4)); }

// Weights ascending -> lengths (of the same order, so descending) by the two-queue method; returns the longest.
inline int plain_lengths(const std::vector<int64_t>& weights, std::vector<uint8_t>& lengths) {
  const size_t n = weights.size();
  std::vector<int64_t> inner;
  std::vector<size_t> parent(2 * n - 1);
  inner.reserve(n);
  size_t leaf = 0, node = 0;
  const auto take = [&]() -> size_t {
    return node >= inner.size() || (leaf < n && weights[leaf] <= inner[node]) ? leaf++ : n + node++;
  };
  const auto weight = [&](size_t i) { return i < n ? weights[i] : inner[i - n]; };
  for (size_t made = 0; made + 1 < n; ++made) {
    const size_t a = take(), b = take();
    parent[a] = parent[b] = n + made;
    inner.push_back(weight(a) + weight(b));
  }
  std::vector<int> depth(2 * n - 1, 0);
  for (size_t i = 2 * n - 2; i-- > 0;) depth[i] = depth[parent[i]] + 1;
  for (size_t i = 0; i < n; ++i) lengths[i] = static_cast<uint8_t>(std::min(depth[i], 255));
  return depth[0];
}

// Package-merge (Larmore and Hirschberg 1990). Level l holds the leaves merged with the pairs of level l - 1; of
// the last level the first 2n - 2 items are taken, and every pair among them takes two items one level down.
inline void limited_lengths(const std::vector<int64_t>& weights, int limit, std::vector<uint8_t>& lengths) {
  const size_t n = weights.size();
  std::vector<std::vector<bool>> is_leaf(limit);
  std::vector<int64_t> items(weights), merged;
  is_leaf[0].assign(n, true);
  for (int level = 1; level < limit; ++level) {
    merged.clear();
    size_t leaf = 0;
    const size_t pairs = items.size() / 2;
    for (size_t pair = 0; leaf < n || pair < pairs;) {
      const int64_t package = pair < pairs ? items[2 * pair] + items[2 * pair + 1] : 0;
      const bool take_leaf = pair >= pairs || (leaf < n && weights[leaf] <= package);
      is_leaf[level].push_back(take_leaf);
      merged.push_back(take_leaf ? weights[leaf] : package);
      take_leaf ? ++leaf : ++pair;
    }
    items.swap(merged);
  }
  std::fill(lengths.begin(), lengths.end(), uint8_t{0});
  size_t taken = 2 * n - 2;
  for (int level = limit - 1; level >= 0 && taken; --level) {
    size_t leaves = 0;
    for (size_t i = 0; i < taken; ++i) leaves += is_leaf[level][i];
    for (size_t i = 0; i < leaves; ++i) ++lengths[i];
    taken = 2 * (taken - leaves);
  }
}

// The table of (symbol, code length) of the symbols that occur.
inline range::Table table_of(const std::vector<int64_t>& histogram) {
  range::Table table;
  for (size_t s = 0; s < histogram.size(); ++s)
    if (histogram[s]) table.push_back({static_cast<uint32_t>(s), 1});
  if (table.size() < 2) return table;
  std::vector<uint32_t> order(table.size());
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    return histogram[table[a].symbol] < histogram[table[b].symbol];
  });
  std::vector<int64_t> weights(order.size());
  for (size_t i = 0; i < order.size(); ++i) weights[i] = histogram[table[order[i]].symbol];
  std::vector<uint8_t> lengths(order.size());
  const int limit = limit_for(order.size());
  if (plain_lengths(weights, lengths) > limit) limited_lengths(weights, limit, lengths);
  for (size_t i = 0; i < order.size(); ++i) table[order[i]].value = lengths[i];
  return table;
}

// codes[symbol]: the canonical code, its first bit lowest (the order in which a little-endian reader meets it).
// Throws unless the lengths fill the code space exactly.
struct Code {
  uint32_t bits, length;
};
inline int canonical(const range::Table& table, std::vector<Code>& codes, int width) {
  codes.assign(size_t{1} << width, {0, 0});
  uint64_t count[kMostBits + 1] = {}, next[kMostBits + 2] = {};
  int longest = 0;
  for (const auto& entry : table) {
    ++count[entry.value];
    longest = std::max(longest, static_cast<int>(entry.value));
  }
  for (int l = 1; l <= longest; ++l) next[l + 1] = (next[l] + count[l]) << 1;
  if (next[longest + 1] != uint64_t{2} << longest) throw Error{GOSSAMER_CORRUPT};
  for (const auto& entry : table) {
    uint32_t code = static_cast<uint32_t>(next[entry.value]++), reversed = 0;
    for (uint32_t b = 0; b < entry.value; ++b, code >>= 1) reversed = reversed << 1 | (code & 1);
    codes[entry.symbol] = {reversed, entry.value};
  }
  return longest;
}

}  // namespace gossamer::huffman
