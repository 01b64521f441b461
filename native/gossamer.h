// The plain C interface of libgossamer.
//
// Symbols are unsigned integers below 2^width, width 1..16, kept in memory as uint8_t when width <= 8 and as
// uint16_t above. Counts and sizes are 64-bit. A function returns a count or size >= 0, or one of the error codes.
// Every decoder takes its input as hostile: it never reads or writes out of range, allocates only tables
// bounded by the alphabet, and ends in time proportional to count + payload.
#ifndef GOSSAMER_H
#define GOSSAMER_H

#include <stdint.h>

#if defined(_WIN32)
#define GOSSAMER_API __declspec(dllexport)
#else
#define GOSSAMER_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

enum {
  GOSSAMER_BAD_ARGUMENT = -1,  // a width, count or pointer no caller should pass
  GOSSAMER_TRUNCATED = -2,     // the payload ends before the last symbol
  GOSSAMER_CORRUPT = -3,       // a table or state that no encoder wrote
  GOSSAMER_TRAILING = -4,      // bytes are left after the last symbol
  GOSSAMER_OUT_OF_RANGE = -5,  // a symbol, code or position beyond its limit
  GOSSAMER_NO_MEMORY = -6,
  GOSSAMER_UNSORTED = -7,  // positions that do not strictly increase
};

GOSSAMER_API int32_t gossamer_abi(void);
GOSSAMER_API const char* gossamer_isa(void);  // "portable", "neon", "avx2" or "avx512"
// Use at most this variant from now on (what GOSSAMER_ISA does at start-up); "" means the best one. A name of another
// architecture is known too: then runs the best one before it in the order above.
GOSSAMER_API int32_t gossamer_set_isa(const char* name);
GOSSAMER_API void gossamer_free(uint8_t* buffer);  // gives back what an encoder wrote to *out

GOSSAMER_API int64_t gossamer_bitpack_encode(const void* symbols, int64_t count, int32_t width, uint8_t* out);
GOSSAMER_API int64_t gossamer_bitpack_decode(const uint8_t* payload, int64_t size, void* symbols, int64_t count,
                                             int32_t width);

// *_encode writes a new buffer to *out (free it) and returns its size; *_cost returns that size alone.
GOSSAMER_API int64_t gossamer_huffman_encode(const void* symbols, int64_t count, int32_t width, uint8_t** out);
GOSSAMER_API int64_t gossamer_huffman_cost(const void* symbols, int64_t count, int32_t width);
GOSSAMER_API int64_t gossamer_huffman_table_bytes(const void* symbols, int64_t count, int32_t width);
// lengths: uint8_t [2^width], zero for a symbol that does not occur; returns the bits of all symbols.
GOSSAMER_API int64_t gossamer_huffman_lengths(const int64_t* histogram, int32_t width, uint8_t* lengths);
GOSSAMER_API int64_t gossamer_huffman_decode(const uint8_t* payload, int64_t size, void* symbols, int64_t count,
                                             int32_t width);

GOSSAMER_API int64_t gossamer_rans_encode(const void* symbols, int64_t count, int32_t width, uint8_t** out);
GOSSAMER_API int64_t gossamer_rans_table_bytes(const void* symbols, int64_t count, int32_t width);
GOSSAMER_API int64_t gossamer_rans_decode(const uint8_t* payload, int64_t size, void* symbols, int64_t count,
                                          int32_t width);

GOSSAMER_API int64_t gossamer_adaptive_encode(const void* symbols, int64_t count, int32_t width, uint8_t** out);
GOSSAMER_API int64_t gossamer_adaptive_decode(const uint8_t* payload, int64_t size, void* symbols, int64_t count,
                                              int32_t width);

// histogram: int64_t [2^width], overwritten.
GOSSAMER_API int64_t gossamer_histogram(const void* symbols, int64_t count, int32_t width, int64_t* histogram);

// Gaps: symbol g < escape = 2^width - 1 skips g zeros and is an entry; the escape skips 2^width - 1 zeros.
GOSSAMER_API int64_t gossamer_gaps_count(const int64_t* positions, int64_t entries, int64_t total, int32_t width);
GOSSAMER_API int64_t gossamer_gaps_encode(const int64_t* positions, int64_t entries, int64_t total, int32_t width,
                                          uint16_t* symbols, int64_t count);
// How many of the symbols are entries; checks that no position reaches total.
GOSSAMER_API int64_t gossamer_gaps_entries(const uint16_t* symbols, int64_t count, int32_t width, int64_t total);
GOSSAMER_API int64_t gossamer_gaps_decode(const uint16_t* symbols, int64_t count, int32_t width, int64_t total,
                                          int64_t* positions, int64_t entries);
// counts: int64_t [limit + 1]: how often each gap occurs, gaps >= limit counted in the last one.
GOSSAMER_API int64_t gossamer_gaps_histogram(const int64_t* positions, int64_t entries, int64_t limit,
                                             int64_t* counts);

// dense float [total]: zero, then values[j] at the j-th entry of the gaps.
GOSSAMER_API int64_t gossamer_scatter(const uint16_t* symbols, int64_t count, int32_t width, const float* values,
                                      int64_t entries, float* dense, int64_t total);
// dense[i] = centroids[codes[i]]; codes are uint8_t (width <= 8) or uint16_t.
GOSSAMER_API int64_t gossamer_lookup(const void* codes, int64_t count, int32_t width, const float* centroids,
                                     int64_t size, float* dense);

// Entries at rising positions of a matrix [rows, columns] in C order (by_column: of its transpose) as the streams of
// sparse_gemv/format.h; starts: [streams + 1]. With bytes null it fills counts [streams * columns] and returns the size;
// with those counts it fills bytes [size].
GOSSAMER_API int64_t gossamer_sparse_pack(const int64_t* positions, const uint8_t* codes, int64_t entries, int64_t rows,
                                          int64_t columns, int32_t by_column, const int64_t* starts, int64_t streams,
                                          uint16_t* counts, uint8_t* bytes, int64_t size);

#ifdef __cplusplus
}
#endif
#endif
