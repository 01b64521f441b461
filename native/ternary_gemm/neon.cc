// Sixteen outputs together: the tables are kept as planes of bytes (planes.h), so that a table look-up by bytes serves
// sixteen indices, and the words of a block are taken apart by bytes too.
//
// With byte b_i of a word its six indices of 5 bits are
//     b0;  b0 >> 5 | b1 << 3;  b1 >> 2;  b1 >> 7 | b2 << 1;  b2 >> 4 | b3 << 4;  b3 >> 1        mod 32
// The sums of a tile are more than the registers hold: they are read and written once for six tables.
#include "cpu.h"
#include "ternary_gemm/kernels.h"

#ifdef GOSSAMER_NEON
#include <algorithm>

#include "planes.h"

namespace gossamer::ternary {
namespace {

static_assert(kWide.entries == kPlane);

void fill(const Weights& weights, const float* x, int64_t step, int64_t count, int64_t apart, float* tables,
          int64_t size) {
  for (int64_t n = 0; n < count; ++n, x += apart, tables += size) {
    float32x4_t sum[kWide.entries / 4];
    for (int i = 0; i < kWide.entries / 4; ++i) {
      const auto part = [&](int j) { return vld1q_f32(weights.parts[j] + 4 * i); };
      const float32x4_t two = vfmaq_n_f32(vmulq_n_f32(part(0), x[0]), part(1), x[step]);
      sum[i] = vfmaq_n_f32(two, part(2), x[2 * step]);
    }
    write_planes(sum, reinterpret_cast<uint8_t*>(tables));
  }
}

// The indices of six tables for sixteen outputs.
struct Indices {
  explicit Indices(const uint32_t* words) {
    const uint8x16x4_t byte = vld4q_u8(reinterpret_cast<const uint8_t*>(words));
    const uint8x16_t all[kWide.groups] = {
        byte.val[0],
        vsliq_n_u8(vshrq_n_u8(byte.val[0], 5), byte.val[1], 3),
        vshrq_n_u8(byte.val[1], 2),
        vsliq_n_u8(vshrq_n_u8(byte.val[1], 7), byte.val[2], 1),
        vsliq_n_u8(vshrq_n_u8(byte.val[2], 4), byte.val[3], 4),
        vshrq_n_u8(byte.val[3], 1),
    };
    for (int group = 0; group < kWide.groups; ++group) of[group] = vandq_u8(all[group], vdupq_n_u8(31));
  }
  uint8x16_t of[kWide.groups];
};

// sums [lanes] += the entries of `count` tables.
inline void add(const Indices& indices, const float* tables, int64_t count, float* sums) {
  float32x4_t sum[4];
  for (int i = 0; i < 4; ++i) sum[i] = vld1q_f32(sums + 4 * i);
  const auto* planes = reinterpret_cast<const uint8_t*>(tables);
  for (int64_t group = 0; group < count; ++group, planes += kPlanes) {
    const float32x4x4_t found = look_up(planes, indices.of[group]);
    for (int i = 0; i < 4; ++i) sum[i] = vaddq_f32(sum[i], found.val[i]);
  }
  for (int i = 0; i < 4; ++i) vst1q_f32(sums + 4 * i, sum[i]);
}

template <int blocks, int points>
void tile(const Weights& weights, const uint32_t* words, const float* const* at, float* sums) {
  constexpr int lanes = kWide.lanes;
  const int64_t tables = weights.tables(), pitch = weights.pitch();
  for (int i = 0; i < points * blocks * lanes; ++i) sums[i] = 0;
  for (int64_t tap = 0; tap < weights.taps; ++tap, at += points)
    for (int64_t table = 0; table < tables; table += kWide.groups, words += lanes)
      for (int b = 0; b < blocks; ++b) {
        const Indices indices(words + b * pitch);
        const int64_t count = std::min<int64_t>(kWide.groups, tables - table);
        for (int p = 0; p < points; ++p)
          add(indices, at[p] + table * kWide.entries, count, sums + (p * blocks + b) * lanes);
      }
}

}  // namespace

Kernels neon() {
  return {kWide, fill, {{tile<1, 1>, tile<1, 2>}, {tile<2, 1>, tile<2, 2>}, {tile<4, 1>, tile<4, 2>}}};
}

}  // namespace gossamer::ternary
#endif
