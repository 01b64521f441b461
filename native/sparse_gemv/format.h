// Sparse weights of at most 16 values: one byte per entry, run << 4 | code, column by column.
//
// The rows are cut into streams, ranges that hold about equally many entries and belong to one thread each; the columns
// of a stream follow each other. In a column the row starts before the first one and every byte moves it:
//     run < 15    row += run + 1, and codebook[code] stands there       (run zeros were passed)
//     run = 15    row += 15 (code + 1), and nothing stands there
// EIE moves 16 rows by a padding entry of value 0; here such a byte moves up to 240 and needs no value of its own, so a
// density of 9 % takes 1.24 bytes per weight instead of 1.28, 4 % takes 1.54 instead of 2.08.
// Source: Han et al., "EIE", ISCA 2016, arXiv:1602.01528, section III-B (column order, 4-bit runs and codes).
#pragma once

#include <array>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace gossamer::sparse {

constexpr int kCodes = 16, kLongRun = 15, kLongest = kLongRun * kCodes;
constexpr int64_t kMaxStreamRows = 65535;  // a column of a stream has at most as many bytes as rows: uint16 counts

constexpr int64_t kMaxColumns = 1 << 27;   // a position of 32 bits then stays one where rows end in long runs

constexpr int step_of(unsigned byte) {
  const int run = static_cast<int>(byte >> 4), code = static_cast<int>(byte & 15);
  return run == kLongRun ? kLongRun * (code + 1) : run + 1;
}

constexpr bool is_entry(unsigned byte) { return byte >> 4 != kLongRun; }

struct Steps {
  std::array<uint32_t, 256> of;
  constexpr Steps() : of{} {
    for (unsigned byte = 0; byte < 256; ++byte) of[byte] = static_cast<uint32_t>(step_of(byte));
  }
};
inline constexpr Steps kSteps;

// Writes the bytes of an entry `gap` zeros after the one before; write(byte) takes them in order.
template <class Write>
inline void put_entry(int64_t gap, unsigned code, Write write) {
  while (gap >= kLongRun) {
    const int64_t runs = gap / kLongRun < kCodes ? gap / kLongRun : kCodes;
    write(static_cast<uint8_t>(kLongRun << 4 | (runs - 1)));
    gap -= kLongRun * runs;
  }
  write(static_cast<uint8_t>(gap << 4 | code));
}

// A matrix [rows, columns] whose bytes belong to someone else and were checked.
struct Matrix {
  int64_t rows, columns, streams;
  const uint8_t* bytes;
  std::vector<int64_t> starts;   // [streams + 1]: stream s owns the rows from starts[s] to starts[s + 1]
  std::vector<uint32_t> column;  // [streams * columns + 1]: where each column of each stream begins
  alignas(64) float codebook[kCodes];

  int64_t size() const { return column.back(); }
  const uint8_t* begin(int64_t stream, int64_t j) const { return bytes + column[stream * columns + j]; }
  const uint8_t* end(int64_t stream, int64_t j) const { return bytes + column[stream * columns + j + 1]; }
};

// The matrix of these fields; throws std::invalid_argument unless every entry lies inside it and has a value.
inline Matrix checked(const uint8_t* bytes, int64_t size, const uint16_t* counts, int64_t count_size,
                      const int64_t* starts, int64_t start_size, const float* codebook, int64_t codes) {
  const auto refuse = [](const std::string& said) { throw std::invalid_argument(said + "; the weights were damaged"); };
  if (start_size < 2 || starts[0] != 0) refuse("'starts' must begin with 0 and name at least one stream");
  const int64_t streams = start_size - 1;
  for (int64_t s = 0; s < streams; ++s) {
    const int64_t owned = starts[s + 1] > starts[s] ? starts[s + 1] - starts[s] : 0;
    if (owned < 1 || owned > kMaxStreamRows) {
      refuse("stream " + std::to_string(s) + " must own 1 to 65535 rows, received rows " + std::to_string(starts[s]) +
             " to " + std::to_string(starts[s + 1]));
    }
  }
  if (count_size % streams) refuse("'counts' has " + std::to_string(count_size) + " elements for " +
                                   std::to_string(streams) + " streams");
  if (count_size / streams > kMaxColumns) refuse("there are more than 2^27 columns");
  if (codes < 1 || codes > kCodes) refuse("the codebook must have 1 to 16 values, received " + std::to_string(codes));
  Matrix matrix{starts[streams], count_size / streams, streams, bytes, {starts, starts + start_size}, {}, {}};
  for (int64_t c = 0; c < codes; ++c) matrix.codebook[c] = codebook[c];
  matrix.column.reserve(static_cast<size_t>(count_size) + 1);
  uint64_t total = 0;
  matrix.column.push_back(0);
  for (int64_t c = 0; c < count_size; ++c) {
    total += counts[c];
    if (total > static_cast<uint64_t>(size)) break;
    matrix.column.push_back(static_cast<uint32_t>(total));
  }
  if (total != static_cast<uint64_t>(size) || total >> 32) {
    refuse("the columns hold " + std::to_string(total) + " bytes or more, but there are " + std::to_string(size));
  }
  uint64_t missing = 0;  // a bit for every byte that names a code beyond the codebook
  for (unsigned code = static_cast<unsigned>(codes); code < kCodes; ++code) missing |= uint64_t{1} << code;
  for (int64_t s = 0; s < streams; ++s) {
    const auto owned = static_cast<uint32_t>(starts[s + 1] - starts[s]);
    for (int64_t j = 0; j < matrix.columns; ++j) {
      uint32_t row = 0;
      uint64_t used = 0;
      for (const uint8_t *at = matrix.begin(s, j), *end = matrix.end(s, j); at < end; ++at) {
        row += kSteps.of[*at];
        used |= static_cast<uint64_t>(is_entry(*at)) << (*at & 15);
      }
      if (row > owned) {
        refuse("column " + std::to_string(j) + " of stream " + std::to_string(s) + " reaches row " +
               std::to_string(row - 1) + " of " + std::to_string(owned));
      }
      if (used & missing) {
        refuse("column " + std::to_string(j) + " of stream " + std::to_string(s) + " uses a code beyond the " +
               std::to_string(codes) + " of the codebook");
      }
    }
  }
  return matrix;
}

}  // namespace gossamer::sparse
