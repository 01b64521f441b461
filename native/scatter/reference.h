// The two ways stored integers become a dense array, as plain loops.
#pragma once

#include <cstdint>

namespace gossamer::scatter {

inline void reference_scatter(const uint16_t* symbols, int64_t count, int width, const float* values, float* dense,
                              int64_t total) {
  const int64_t escape = (int64_t{1} << width) - 1;
  for (int64_t i = 0; i < total; ++i) dense[i] = 0;
  int64_t at = 0;
  for (int64_t i = 0; i < count; ++i) {
    at += symbols[i];
    if (symbols[i] != escape) dense[at++] = *values++;
  }
}

template <class Code>
void reference_lookup(const Code* codes, int64_t count, const float* centroids, float* dense) {
  for (int64_t i = 0; i < count; ++i) dense[i] = centroids[codes[i]];
}

}  // namespace gossamer::scatter
