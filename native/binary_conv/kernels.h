// The three loops that take the time, per variant. All variants give the same integers.
#pragma once

#include "binary_conv/format.h"

namespace gossamer::binary {

// differ [kPixels, kOutputs] = bits in which each patch [kPixels, words] differs from each filter of a block.
using Tile = void (*)(const uint64_t* patches, const uint64_t* filters, int64_t words, int32_t* differ);
void tile_portable(const uint64_t* patches, const uint64_t* filters, int64_t words, int32_t* differ);
void tile_avx2(const uint64_t* patches, const uint64_t* filters, int64_t words, int32_t* differ);
void tile_avx512(const uint64_t* patches, const uint64_t* filters, int64_t words, int32_t* differ);
// The same of one patch: differ [kOutputs].
void single_portable(const uint64_t* patch, const uint64_t* filters, int64_t words, int32_t* differ);
void single_avx2(const uint64_t* patch, const uint64_t* filters, int64_t words, int32_t* differ);
void single_avx512(const uint64_t* patch, const uint64_t* filters, int64_t words, int32_t* differ);

// Signs of x [channels, pixels] as words [pixels, channel_words].
using Pack = void (*)(const float* x, int64_t channels, int64_t pixels, uint64_t* words);
void pack_portable(const float* x, int64_t channels, int64_t pixels, uint64_t* words);
void pack_avx512(const float* x, int64_t channels, int64_t pixels, uint64_t* words);

bool has_popcount512();  // AVX-512 with VPOPCNTDQ, and not capped below

struct Kernels {
  Tile tile, single;
  Pack pack;
};
Kernels kernels();  // of the variant that runs

}  // namespace gossamer::binary
