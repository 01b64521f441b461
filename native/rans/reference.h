// The plain form of fast.h: one symbol at a time, every access checked. It also decodes what a vector variant leaves.
#pragma once

#include "rans/fast.h"

namespace gossamer::rans {

inline void reference_fast(FastState& state, uint8_t* symbols, int64_t count) {
  const FastView view(*state.table);
  for (int64_t row = 0; row < count; row += kFastLanes) {
    const int lanes = static_cast<int>(std::min<int64_t>(kFastLanes, count - row));
    for (int lane = 0; lane < lanes; ++lane) {
      uint32_t& x = state.x[lane];
      const FastStep step = state.table->is_packed() ? fast_step<true>(view, x) : fast_step<false>(view, x);
      symbols[row + lane] = step.symbol;
      x = step.x;
      if (x >= kFastLow) continue;
      if (state.end - state.at < 2) throw Error{GOSSAMER_TRUNCATED};
      x = x << 16 | load<uint16_t>(state.at);
      state.at += 2;
    }
  }
}

}  // namespace gossamer::rans
