// The plain form of fast.h: one symbol at a time, every access checked. It also decodes what a vector variant leaves.
#pragma once

#include "rans/fast.h"

namespace gossamer::rans {

inline void reference_fast(FastState& state, uint8_t* symbols, int64_t count) {
  const uint32_t mask = (1u << state.precision) - 1;
  for (int64_t row = 0; row < count; row += kFastLanes) {
    const int lanes = static_cast<int>(std::min<int64_t>(kFastLanes, count - row));
    for (int lane = 0; lane < lanes; ++lane) {
      uint32_t& x = state.x[lane];
      const uint32_t entry = state.table[x & mask];
      symbols[row + lane] = static_cast<uint8_t>(entry);
      x = (entry >> 8 & 4095) * (x >> state.precision) + (entry >> 20);
      if (x >= kFastLow) continue;
      if (state.end - state.at < 2) throw Error{GOSSAMER_TRUNCATED};
      x = x << 16 | load<uint16_t>(state.at);
      state.at += 2;
    }
  }
}

}  // namespace gossamer::rans
