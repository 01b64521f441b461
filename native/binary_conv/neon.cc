// Two outputs in a register: EOR and CNT count the bits of every byte, and byte counts are added for up to 31 steps, at most
// 248, before they become sums of 32 bits, two for each output.
#include "binary_conv/kernels.h"
#include "cpu.h"

#ifdef GOSSAMER_NEON
#include <arm_neon.h>

#include <algorithm>

namespace gossamer::binary {
namespace {

constexpr int64_t kSteps = 31;

// Eight outputs at a time, so that the counts of four pixels stay in registers.
template <int count>
void tile(const uint64_t* const* pixels, const int64_t* steps, int64_t words, const uint64_t* filters, int32_t all,
          int32_t* v) {
  for (int first = 0; first < kOutputs; first += 8) {
    uint32x4_t sum[count][4] = {};
    for (int64_t from = 0; from < words; from += kSteps) {
      const int64_t end = std::min(from + kSteps, words);
      uint8x16_t bytes[count][4] = {};
      for (int64_t k = from; k < end; ++k) {
        uint64x2_t filter[4];
        for (int i = 0; i < 4; ++i) filter[i] = vld1q_u64(filters + k * kOutputs + first + 2 * i);
        for (int p = 0; p < count; ++p) {
          const uint64x2_t word = vdupq_n_u64(pixels[p][steps[k]]);
          for (int i = 0; i < 4; ++i)
            bytes[p][i] = vaddq_u8(bytes[p][i], vcntq_u8(vreinterpretq_u8_u64(veorq_u64(word, filter[i]))));
        }
      }
      for (int p = 0; p < count; ++p)
        for (int i = 0; i < 4; ++i) sum[p][i] = vpadalq_u16(sum[p][i], vpaddlq_u8(bytes[p][i]));
    }
    for (int p = 0; p < count; ++p)
      for (int half = 0; half < 2; ++half) {
        const uint32x4_t differ = vpaddq_u32(sum[p][2 * half], sum[p][2 * half + 1]);
        vst1q_s32(v + p * kOutputs + first + 4 * half, vmlsq_n_s32(vdupq_n_s32(all), vreinterpretq_s32_u32(differ), 2));
      }
  }
}

void finish(const int32_t* v, int64_t count, const Floats& how, float* y) {
  float one[kOutputs], scale[kOutputs] = {}, offset[kOutputs] = {};
  std::copy_n(how.scale, how.outputs, scale);
  std::copy_n(how.offset, how.outputs, offset);
  for (int64_t p = 0; p < count; ++p) {
    for (int i = 0; i < kOutputs; i += 4) {
      const float32x4_t value = vcvtq_f32_s32(vld1q_s32(v + p * kOutputs + i));
      vst1q_f32(one + i, vfmaq_f32(vld1q_f32(offset + i), vld1q_f32(scale + i), value));
    }
    for (int64_t o = 0; o < how.outputs; ++o) y[o * how.step_o + p * how.step_p] = one[o];
  }
}

// A bit for each lane of sixteen masks, the first the lowest: the sums of 1, 2, 4 ... of eight lanes.
inline uint32_t bits_of(const uint32x4_t* masks) {
  static constexpr uint8_t kBits[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  const uint16x8_t low = vcombine_u16(vmovn_u32(masks[0]), vmovn_u32(masks[1]));
  const uint16x8_t high = vcombine_u16(vmovn_u32(masks[2]), vmovn_u32(masks[3]));
  const uint8x16_t bits = vandq_u8(vcombine_u8(vmovn_u16(low), vmovn_u16(high)), vld1q_u8(kBits));
  return vaddv_u8(vget_low_u8(bits)) | static_cast<uint32_t>(vaddv_u8(vget_high_u8(bits))) << 8;
}

inline uint32x4_t is_minus(float32x4_t x) { return vmvnq_u32(vcgezq_f32(x)); }  // NaN too

// x, or where fewer than sixteen are left a copy of them among zeros.
inline const float* sixteen(const float* x, int64_t left, float* few) {
  if (left >= 16) return x;
  std::copy_n(x, left, few);
  return few;
}

void compare(const int32_t* v, int64_t count, const int32_t* thresholds, uint8_t* bits, int64_t step) {
  for (int64_t p = 0; p < count; ++p) {
    uint32x4_t less[4];
    for (int i = 0; i < 4; ++i) less[i] = vcltq_s32(vld1q_s32(v + p * kOutputs + 4 * i), vld1q_s32(thresholds + 4 * i));
    const uint32_t mask = bits_of(less);
    bits[p * step] = static_cast<uint8_t>(mask);
    bits[p * step + 1] = static_cast<uint8_t>(mask >> 8);
  }
}

// Sixteen pixels, a lane of 32 bits each: from the last channel to the first, SLI shifts a lane and inserts one bit.
void pack(const float* x, int64_t channels, int64_t pixels, uint64_t* words) {
  const int64_t step = words_of(channels);
  float few[16] = {};
  for (int64_t from = 0; from < pixels; from += 16) {
    const int64_t count = std::min<int64_t>(16, pixels - from);
    for (int64_t word = 0; word < step; ++word) {
      uint32_t bits[2][16];
      for (int half = 0; half < 2; ++half) {
        const int64_t first = 64 * word + 32 * half;
        uint32x4_t lanes[4] = {};
        for (int64_t c = std::min(channels, first + 32) - 1; c >= first; --c) {
          const float* at = sixteen(x + c * pixels + from, count, few);
          for (int i = 0; i < 4; ++i) lanes[i] = vsliq_n_u32(is_minus(vld1q_f32(at + 4 * i)), lanes[i], 1);
        }
        for (int i = 0; i < 4; ++i) vst1q_u32(bits[half] + 4 * i, lanes[i]);
      }
      for (int64_t p = 0; p < count; ++p)
        words[(from + p) * step + word] = static_cast<uint64_t>(bits[1][p]) << 32 | bits[0][p];
    }
  }
}

void pack_rows(const float* x, int64_t rows, int64_t channels, uint64_t* words) {
  const int64_t step = words_of(channels);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t word = 0; word < step; ++word) {
      uint64_t bits = 0;
      for (int64_t c = 64 * word; c < std::min(channels, 64 * (word + 1)); c += 16) {
        float few[16] = {};
        const float* at = sixteen(x + r * channels + c, channels - c, few);
        uint32x4_t minus[4];
        for (int i = 0; i < 4; ++i) minus[i] = is_minus(vld1q_f32(at + 4 * i));
        bits |= static_cast<uint64_t>(bits_of(minus)) << c % 64;
      }
      words[r * step + word] = bits;
    }
}

}  // namespace

Kernels neon_kernels() { return {{tile<1>, tile<2>, tile<3>, tile<4>}, finish, compare, pack, pack_rows}; }

}  // namespace gossamer::binary
#endif
