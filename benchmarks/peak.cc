// How many products of signs a second the registers allow: the inner loop of a kernel without a load or a store.
#include <immintrin.h>

#include <cstdint>

extern "C" {

// 16 sums of 512 bits; every step counts 16 * 512 products.
__attribute__((target("avx512f,avx512vpopcntdq"))) uint64_t peak_avx512(int64_t steps) {
  __m512i sum[16], filter = _mm512_set1_epi64(steps), word = _mm512_set1_epi64(0x5a5a);
  for (auto& one : sum) one = _mm512_setzero_si512();
  for (int64_t k = 0; k < steps; ++k) {
    asm volatile("" : "+v"(word), "+v"(filter));
    for (auto& one : sum) {
      __m512i differs = _mm512_xor_si512(word, filter);
      asm volatile("" : "+v"(differs));
      one = _mm512_add_epi64(one, _mm512_popcnt_epi64(differs));
    }
  }
  uint64_t total = 0, eight[8];
  for (auto& one : sum) {
    _mm512_storeu_si512(eight, one);
    for (uint64_t value : eight) total += value;
  }
  return total;
}

// Eight sums of 256 bits; every step counts 8 * 256 products.
__attribute__((target("avx2"))) uint64_t peak_avx2(int64_t steps) {
  const __m256i table = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
  const __m256i low = _mm256_set1_epi8(15);
  __m256i sum[8], filter = _mm256_set1_epi64x(steps), word = _mm256_set1_epi64x(0x5a5a);
  for (auto& one : sum) one = _mm256_setzero_si256();
  for (int64_t k = 0; k < steps; ++k) {
    asm volatile("" : "+x"(word), "+x"(filter));
    for (auto& one : sum) {
      __m256i differs = _mm256_xor_si256(word, filter);
      asm volatile("" : "+x"(differs));
      const __m256i left = _mm256_shuffle_epi8(table, _mm256_and_si256(differs, low));
      const __m256i right = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(differs, 4), low));
      one = _mm256_add_epi8(one, _mm256_add_epi8(left, right));
    }
  }
  uint64_t total = 0, four[4];
  for (auto& one : sum) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(four), one);
    for (uint64_t value : four) total += value;
  }
  return total;
}
}
