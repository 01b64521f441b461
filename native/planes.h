// Look-ups of floats by bytes, sixteen at a time: NEON has one permutation by index, TBL, and it moves bytes.
//
// A table of 32 floats is kept as four planes: plane i holds byte i of every float, little-endian. One TBL for each plane
// looks up sixteen entries, and interleaving the four results twice, bytes to halves and halves to words, gives the floats:
//     table[index[l]] = sum_i planes[i][index[l]] 2^(8 i)        as bit patterns, l < 16
// The planes of floats are made by the same steps backwards.
#pragma once

#include "cpu.h"

#ifdef GOSSAMER_NEON
#include <arm_neon.h>

namespace gossamer {

constexpr int kPlane = 32;           // bytes: one for each float
constexpr int kPlanes = 4 * kPlane;  // as many as the floats themselves

// planes [4, kPlane] of kPlane floats.
inline void write_planes(const float32x4_t* table, uint8_t* planes) {
  for (int half = 0; half < 2; ++half, table += 4) {
    const auto of = [&](int i) { return vreinterpretq_u16_f32(table[i]); };
    const auto bytes = [](uint16x8_t one) { return vreinterpretq_u8_u16(one); };
    const uint8x16_t low[2] = {bytes(vuzp1q_u16(of(0), of(1))), bytes(vuzp1q_u16(of(2), of(3)))};
    const uint8x16_t high[2] = {bytes(vuzp2q_u16(of(0), of(1))), bytes(vuzp2q_u16(of(2), of(3)))};
    uint8_t* to = planes + kPlane / 2 * half;
    vst1q_u8(to, vuzp1q_u8(low[0], low[1]));
    vst1q_u8(to + kPlane, vuzp2q_u8(low[0], low[1]));
    vst1q_u8(to + 2 * kPlane, vuzp1q_u8(high[0], high[1]));
    vst1q_u8(to + 3 * kPlane, vuzp2q_u8(high[0], high[1]));
  }
}

// The entries [index[l]], l < 16, every index below kPlane.
inline float32x4x4_t look_up(const uint8_t* planes, uint8x16_t index) {
  const auto byte = [&](int i) { return vqtbl2q_u8(vld1q_u8_x2(planes + i * kPlane), index); };
  const auto halves = [](uint8x16_t one) { return vreinterpretq_u16_u8(one); };
  const auto floats = [](uint16x8_t one) { return vreinterpretq_f32_u16(one); };
  const uint8x16_t bytes[4] = {byte(0), byte(1), byte(2), byte(3)};
  const uint16x8_t low[2] = {halves(vzip1q_u8(bytes[0], bytes[1])), halves(vzip2q_u8(bytes[0], bytes[1]))};
  const uint16x8_t high[2] = {halves(vzip1q_u8(bytes[2], bytes[3])), halves(vzip2q_u8(bytes[2], bytes[3]))};
  return {{floats(vzip1q_u16(low[0], high[0])), floats(vzip2q_u16(low[0], high[0])),
           floats(vzip1q_u16(low[1], high[1])), floats(vzip2q_u16(low[1], high[1]))}};
}

}  // namespace gossamer
#endif
