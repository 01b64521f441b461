// Plain loops, but without a branch that depends on the data: whether a lane takes a word cannot be predicted.
#include "rans/fast.h"

namespace gossamer::rans {
namespace {

template <bool packed>
int64_t rows_of(FastState& state, uint8_t* symbols, int64_t rows) {
  const FastTable& table = *state.table;
  const uint8_t* at = state.at;
  uint32_t x[kFastLanes];
  std::memcpy(x, state.x, sizeof x);
  int64_t row = 0;
  for (; row < rows && state.end - at >= 2 * kFastLanes; ++row, symbols += kFastLanes) {
    for (int lane = 0; lane < kFastLanes; ++lane) x[lane] = fast_step<packed>(table, x[lane], symbols + lane);
    for (int lane = 0; lane < kFastLanes; ++lane) {
      const uint32_t low = (x[lane] >> 16) == 0;
      const uint32_t next = x[lane] << 16 | load<uint16_t>(at);
      x[lane] ^= (x[lane] ^ next) & (0u - low);
      at += 2 * low;
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
