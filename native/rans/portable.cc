// Plain loops, but without a branch that depends on the data: whether a lane takes a word cannot be predicted. Four
// lanes at a time stay in registers and hide the look-ups' latency.
#include "rans/fast.h"

namespace gossamer::rans {
namespace {

template <bool packed>
int64_t rows_of(FastState& state, uint8_t* symbols, int64_t rows) {
  constexpr int kGroup = 4;
  const FastView view(*state.table);
  const uint8_t* at = state.at;
  uint32_t x[kFastLanes];
  std::memcpy(x, state.x, sizeof x);
  int64_t row = 0;
  for (; row < rows && state.end - at >= 2 * kFastLanes; ++row, symbols += kFastLanes) {
    for (int lane = 0; lane < kFastLanes; lane += kGroup) {
      FastStep steps[kGroup];
      for (int k = 0; k < kGroup; ++k) steps[k] = fast_step<packed>(view, x[lane + k]);
      for (int k = 0; k < kGroup; ++k) {
        const uint32_t y = steps[k].x, low = (y >> 16) == 0;
        const uint32_t next = y << 16 | load<uint16_t>(at);
        symbols[lane + k] = steps[k].symbol;
        x[lane + k] = y ^ ((y ^ next) & (0u - low));
        at += 2 * low;
      }
    }
  }
  std::memcpy(state.x, x, sizeof x);
  state.at = at;
  return row;
}

}  // namespace

int64_t fast_rows_portable(FastState& state, uint8_t* symbols, int64_t rows) {
  return state.table->is_packed() ? rows_of<true>(state, symbols, rows) : rows_of<false>(state, symbols, rows);
}

}  // namespace gossamer::rans
