#include "rans/fast.h"

namespace gossamer::rans {

int64_t fast_rows_portable(FastState& state, uint8_t* symbols, int64_t rows) {
  const uint32_t* table = state.table;
  const int n = state.precision;
  const uint32_t mask = (1u << n) - 1;
  const uint8_t* at = state.at;
  uint32_t x[kFastLanes];
  std::memcpy(x, state.x, sizeof x);
  int64_t row = 0;
  for (; row < rows && state.end - at >= 2 * kFastLanes; ++row, symbols += kFastLanes) {
    for (int lane = 0; lane < kFastLanes; ++lane) {
      const uint32_t entry = table[x[lane] & mask];
      symbols[lane] = static_cast<uint8_t>(entry);
      const uint32_t y = (entry >> 8 & 4095) * (x[lane] >> n) + (entry >> 20);
      const bool low = y < kFastLow;
      const uint32_t next = y << 16 | load<uint16_t>(at);
      x[lane] = low ? next : y;
      at += low ? 2 : 0;
    }
  }
  std::memcpy(state.x, x, sizeof x);
  state.at = at;
  return row;
}

}  // namespace gossamer::rans
