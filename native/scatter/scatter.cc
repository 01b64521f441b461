// Codebook look-up and sparse scatter. Both are bound by the write of the dense array, so each writes it once: a
// scatter clears a block that fits the first cache just before it drops that block's entries into it.
#include "scatter/reference.h"

#include "cpu.h"
#include "planes.h"
#include "symbols.h"

#ifdef GOSSAMER_X86
#include <immintrin.h>
#endif

namespace gossamer::scatter {
namespace {

constexpr int64_t kBlock = 4096;  // floats

template <class Code>
uint32_t largest(const Code* codes, int64_t count) {
  Code most = 0;
  for (int64_t i = 0; i < count; ++i) most = codes[i] > most ? codes[i] : most;
  return most;
}

#ifdef GOSSAMER_X86
// At most 32 centroids stay in two registers; one two-source permutation looks up sixteen codes.
GOSSAMER_TARGET("avx512f,avx512bw,avx512vl,avx512dq")
int64_t lookup_avx512(const uint8_t* codes, int64_t count, const float* centroids, int64_t size, float* dense) {
  float table[32] = {};
  std::memcpy(table, centroids, static_cast<size_t>(size) * sizeof(float));
  const __m512 low = _mm512_loadu_ps(table), high = _mm512_loadu_ps(table + 16);
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const __m512i code = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + i)));
    _mm512_storeu_ps(dense + i, _mm512_permutex2var_ps(low, code, high));
  }
  return i;
}

// At most 16 centroids: two permutations of eight, blended by bit 3 of the code.
GOSSAMER_TARGET("avx2")
int64_t lookup_avx2(const uint8_t* codes, int64_t count, const float* centroids, int64_t size, float* dense) {
  float table[16] = {};
  std::memcpy(table, centroids, static_cast<size_t>(size) * sizeof(float));
  const __m256 low = _mm256_loadu_ps(table), high = _mm256_loadu_ps(table + 8);
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m256i code = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes + i)));
    const __m256 upper = _mm256_castsi256_ps(_mm256_slli_epi32(code, 28));  // bit 3 to the sign
    _mm256_storeu_ps(dense + i, _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, code),
                                                 _mm256_permutevar8x32_ps(high, code), upper));
  }
  return i;
}
#endif

#ifdef GOSSAMER_NEON
// At most 32 centroids stay in eight registers, as planes of bytes.
int64_t lookup_neon(const uint8_t* codes, int64_t count, const float* centroids, int64_t size, float* dense) {
  float32x4_t table[kPlane / 4] = {};
  std::memcpy(table, centroids, static_cast<size_t>(size) * sizeof(float));
  uint8_t planes[kPlanes];
  write_planes(table, planes);
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const float32x4x4_t found = look_up(planes, vld1q_u8(codes + i));
    for (int part = 0; part < 4; ++part) vst1q_f32(dense + i + 4 * part, found.val[part]);
  }
  return i;
}
#endif

int64_t lookup_vector(const uint8_t* codes, int64_t count, const float* centroids, int64_t size, float* dense) {
#ifdef GOSSAMER_X86
  if (isa() == Isa::avx512 && size <= 32) return lookup_avx512(codes, count, centroids, size, dense);
  if (isa() >= Isa::avx2 && size <= 16) return lookup_avx2(codes, count, centroids, size, dense);
#endif
#ifdef GOSSAMER_NEON
  if (isa() == Isa::neon && size <= kPlane) return lookup_neon(codes, count, centroids, size, dense);
#endif
  return 0;
}
int64_t lookup_vector(const uint16_t*, int64_t, const float*, int64_t, float*) { return 0; }

}  // namespace
}  // namespace gossamer::scatter

using namespace gossamer;

extern "C" {

int64_t gossamer_scatter(const uint16_t* symbols, int64_t count, int32_t width, const float* values, int64_t entries,
                         float* dense, int64_t total) {
  if ((!values && entries) || (!dense && total)) return GOSSAMER_BAD_ARGUMENT;
  const int64_t found = gossamer_gaps_entries(symbols, count, width, total);
  if (found < 0) return found;
  if (found != entries) return GOSSAMER_TRAILING;
  const int64_t escape = (int64_t{1} << width) - 1;
  int64_t at = 0, cleared = 0, next = 0;
  for (int64_t i = 0; i < count; ++i) {
    at += symbols[i];
    while (at >= cleared && cleared < total) {
      const int64_t block = total - cleared < scatter::kBlock ? total - cleared : scatter::kBlock;
      std::memset(dense + cleared, 0, static_cast<size_t>(block) * sizeof(float));
      cleared += block;
    }
    if (symbols[i] == escape) continue;
    dense[at++] = values[next++];
  }
  if (cleared < total) std::memset(dense + cleared, 0, static_cast<size_t>(total - cleared) * sizeof(float));
  return 0;
}

int64_t gossamer_lookup(const void* codes, int64_t count, int32_t width, const float* centroids, int64_t size,
                        float* dense) {
  if (!valid(codes, count, width) || size < 0 || (!centroids && size) || (!dense && count))
    return GOSSAMER_BAD_ARGUMENT;
  return typed(codes, width, [&](auto* typed_codes) -> int64_t {
    if (count && scatter::largest(typed_codes, count) >= size) return GOSSAMER_OUT_OF_RANGE;
    const int64_t done = scatter::lookup_vector(typed_codes, count, centroids, size, dense);
    scatter::reference_lookup(typed_codes + done, count - done, centroids, dense + done);
    return 0;
  });
}

}  // extern "C"
