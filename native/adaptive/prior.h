// What a bit-tree believes before the first symbol: nothing, or a bell or a two-sided exponential over the alphabet.
//
// Quantized weights are bell-shaped and gaps are geometric, so fifteen bits that name shape, centre, spread and
// strength save most of what the tree would pay to learn. Leaf weights come from the recurrence
//     w <- w r,   r <- r q        (exponential: q = 1; bell: q = r_0^2)
// walked away from the centre in fixed point, in integers alone, so every machine builds the same tree.
// A node believes the share of its left half as firmly as if it had seen its part of `strength` symbols.
#pragma once

#include "range/model.h"

namespace gossamer::adaptive {

struct Prior {
  unsigned used = 0, bell = 0, centre = 0, spread = 0, strength = 0;

  template <class Coder>
  void code(Coder& coder) {
    used = range::Mean(32768).bit(coder, used);
    if (!used) return;
    bell = range::raw(coder, 1, bell);
    centre = range::raw(coder, 5, centre);
    spread = range::raw(coder, 4, spread);
    strength = range::raw(coder, 2, strength);
  }
};

constexpr unsigned kCentres = 32, kSpreads = 16;
constexpr uint64_t kStrengths[] = {12, 40, 128, 400};

// Spread s halves the weight at a distance of h = 2^(s / 2 - 1) symbols. In units of 2^-31:
struct Decay {
  uint64_t exponential[kSpreads] = {  // 2^(-1 / h)
      536870912, 805766418, 1073741824, 1315435367, 1518500250, 1680736726, 1805811301, 1899830160,
      1969251188, 2019864897, 2056437387, 2082697010, 2101467502, 2114842257, 2124350982, 2131100459};
  uint64_t bell[kSpreads] = {  // 2^(-1 / h^2)
      134217728, 536870912, 1073741824, 1518500250, 1805811301, 1969251188, 2056437387, 2101467502,
      2124350982, 2135885998, 2141676973, 2144578345, 2146030505, 2146756953, 2147120270, 2147301951};
  uint64_t bend[kSpreads] = {  // 2^(-2 / h^2)
      8388608, 134217728, 536870912, 1073741824, 1518500250, 1805811301, 1969251188, 2056437387,
      2101467502, 2124350982, 2135885998, 2141676973, 2144578345, 2146030505, 2146756953, 2147120270};
};

inline int64_t centre_of(unsigned centre, int64_t size) {
  if (centre == 0) return 0;  // a one-sided exponential: gaps
  if (centre == kCentres - 1) return size - 1;
  return (2 * centre + 1) * (size - 1) / (2 * kCentres);
}

// Sums of leaf weights per node of the tree: [2^(width + 1)], node n has the children 2n and 2n + 1.
inline std::vector<uint64_t> node_weights(const Prior& prior, int width) {
  static const Decay decay;
  constexpr int kBits = 31;
  const int64_t size = int64_t{1} << width, from = centre_of(prior.centre, size);
  std::vector<uint64_t> nodes(static_cast<size_t>(2 * size));
  for (int direction = -1; direction <= 1; direction += 2) {
    uint64_t w = uint64_t{1} << kBits, q = w;
    uint64_t r = prior.bell ? decay.bell[prior.spread] : decay.exponential[prior.spread];
    if (prior.bell) q = decay.bend[prior.spread];
    for (int64_t at = from; at >= 0 && at < size; at += direction) {
      nodes[static_cast<size_t>(size + at)] = w + (uint64_t{1} << (kBits - 14));  // nothing is impossible
      w = w * r >> kBits;
      r = r * q >> kBits;
    }
  }
  for (size_t node = static_cast<size_t>(size); node-- > 1;) nodes[node] = nodes[2 * node] + nodes[2 * node + 1];
  return nodes;
}

}  // namespace gossamer::adaptive
