// Many samples: four rows and sixteen samples in registers, four passes over a slice, which stays in the first cache. The
// values are looked up by bytes, four times the code and the three after it in a table of 64.
//
// For one sample there is no gather to gain from, and the products of columns.cc are vectors as compilers write them.
#include "cpu.h"
#include "sparse_gemv/rows.h"

#ifdef GOSSAMER_NEON
#include <arm_neon.h>

#include <cstring>

namespace gossamer::sparse {
namespace {

constexpr int kFour = 4;  // rows of a pass

struct Four {
  int32x4_t column;   // after the step
  float32x4_t value;  // 0 for a long run
  uint32x4_t entry;   // all ones for an entry
};

struct Decoder {
  uint8x16x4_t values;
  explicit Decoder(const float* codebook) : values(vld1q_u8_x4(reinterpret_cast<const uint8_t*>(codebook))) {}

  Four step(int32x4_t column, const uint8_t* bytes) const {
    uint32_t together;
    std::memcpy(&together, bytes, sizeof together);
    const uint32x4_t byte = vmovl_u16(vget_low_u16(vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(together)))));
    const uint32x4_t run = vshrq_n_u32(byte, 4), code = vandq_u32(byte, vdupq_n_u32(15)), one = vdupq_n_u32(1);
    const uint32x4_t entry = vcltq_u32(run, vdupq_n_u32(kLongRun));
    const uint32x4_t moved = vbslq_u32(entry, vaddq_u32(run, one), vmulq_n_u32(vaddq_u32(code, one), kLongRun));
    const uint32x4_t at = vmlaq_n_u32(vdupq_n_u32(0x03020100), code, 0x04040404);
    const uint32x4_t value = vreinterpretq_u32_u8(vqtbl4q_u8(values, vreinterpretq_u8_u32(at)));
    return {vaddq_s32(column, vreinterpretq_s32_u32(moved)), vreinterpretq_f32_u32(vandq_u32(value, entry)), entry};
  }
};

template <int lane>
inline void add(const Four& now, const int32_t* line, const float* x, float32x4_t (*sum)[4]) {
  const float* samples = x + static_cast<int64_t>(line[lane]) * kBatch;
  for (int i = 0; i < 4; ++i) sum[lane][i] = vfmaq_laneq_f32(sum[lane][i], vld1q_f32(samples + 4 * i), now.value, lane);
}

}  // namespace

void slice_batch_neon(Slice slice, const float* codebook, const float* x, int64_t columns, float* sums) {
  const Decoder decoder(codebook);
  const int32x4_t zero_line = vdupq_n_s32(static_cast<int32_t>(columns));
  for (int first = 0; first < kLanes; first += kFour) {
    int32x4_t column = vdupq_n_s32(-1);
    float32x4_t sum[kFour][4] = {};
    for (int64_t k = 0; k < slice.steps; ++k) {
      const Four now = decoder.step(column, slice.bytes + k * kLanes + first);
      column = now.column;
      int32_t line[kFour];
      vst1q_s32(line, vbslq_s32(now.entry, column, zero_line));
      add<0>(now, line, x, sum);
      add<1>(now, line, x, sum);
      add<2>(now, line, x, sum);
      add<3>(now, line, x, sum);
    }
    for (int lane = 0; lane < kFour; ++lane)
      for (int i = 0; i < 4; ++i) vst1q_f32(sums + (first + lane) * kBatch + 4 * i, sum[lane][i]);
  }
}

}  // namespace gossamer::sparse
#endif
