#include "sparse_gemv/columns.h"

#include <cstring>

#include "cpu.h"
#include "symbols.h"

#ifdef GOSSAMER_X86
#include <immintrin.h>
#endif

namespace gossamer::sparse {
namespace {

constexpr int kEntries = kLongRun * kCodes;  // bytes that are entries; those above are long runs

void products(const float* codebook, float value, float* table) {
  float one[kCodes];
  for (int c = 0; c < kCodes; ++c) one[c] = codebook[c] * value;
  for (int at = 0; at < kEntries; at += kCodes) std::memcpy(table + at, one, sizeof one);
}

#ifdef GOSSAMER_X86
GOSSAMER_TARGET("avx2")
void products_avx2(const float* codebook, float value, float* table) {
  const __m256 low = _mm256_mul_ps(_mm256_load_ps(codebook), _mm256_set1_ps(value));
  const __m256 high = _mm256_mul_ps(_mm256_load_ps(codebook + 8), _mm256_set1_ps(value));
  for (int at = 0; at < kEntries; at += kCodes) {
    _mm256_store_ps(table + at, low);
    _mm256_store_ps(table + at + 8, high);
  }
}

GOSSAMER_TARGET("avx512f")
void products_avx512(const float* codebook, float value, float* table) {
  const __m512 all = _mm512_mul_ps(_mm512_load_ps(codebook), _mm512_set1_ps(value));
  for (int at = 0; at < kEntries; at += kCodes) _mm512_store_ps(table + at, all);
}
#endif

inline void ask_for(const uint8_t* at, const uint8_t* end) {
#if defined(__GNUC__) || defined(__clang__)
  for (; at < end; at += 64) __builtin_prefetch(at);
#else
  (void)at, (void)end;
#endif
}

}  // namespace

void add_columns(const Matrix& matrix, int64_t stream, const Active* active, int64_t count, float* y) {
  auto fill = products;
#ifdef GOSSAMER_X86
  if (isa() >= Isa::avx2) fill = isa() == Isa::avx512 ? products_avx512 : products_avx2;
#endif
  alignas(64) float table[256] = {};
  const uint32_t* steps = kSteps.of.data();
  for (int64_t k = 0; k < count; ++k) {
    const int64_t j = active[k].column;
    if (k + 2 < count) ask_for(matrix.begin(stream, active[k + 2].column), matrix.end(stream, active[k + 2].column));
    fill(matrix.codebook, active[k].value, table);
    const uint8_t *at = matrix.begin(stream, j), *end = matrix.end(stream, j);
    int64_t row = -1;
    const auto take = [&](uint64_t byte) {
      row += steps[byte];
      y[row] += table[byte];
    };
    for (; end - at >= 8; at += 8) {
      const auto eight = load<uint64_t>(at);
      take(eight & 255);
      take(eight >> 8 & 255);
      take(eight >> 16 & 255);
      take(eight >> 24 & 255);
      take(eight >> 32 & 255);
      take(eight >> 40 & 255);
      take(eight >> 48 & 255);
      take(eight >> 56);
    }
    for (; at < end; ++at) take(*at);
  }
}

}  // namespace gossamer::sparse
