// Entries in the order of a file, rewritten as the streams of format.h.
#include <vector>

#include "gossamer.h"
#include "sparse_gemv/format.h"
#include "symbols.h"

using namespace gossamer;

extern "C" int64_t gossamer_sparse_pack(const int64_t* positions, const uint8_t* codes, int64_t entries, int64_t rows,
                                        int64_t columns, int32_t by_column, const int64_t* starts, int64_t streams,
                                        uint16_t* counts, uint8_t* bytes, int64_t size) {
  if (((!positions || !codes) && entries) || entries < 0 || rows < 1 || columns < 1 || streams < 1 || !starts ||
      !counts || starts[0] != 0 || starts[streams] != rows || rows > INT32_MAX || columns > INT32_MAX)
    return GOSSAMER_BAD_ARGUMENT;
  for (int64_t s = 0; s < streams; ++s)
    if (starts[s + 1] <= starts[s] || starts[s + 1] - starts[s] > sparse::kMaxStreamRows) return GOSSAMER_BAD_ARGUMENT;
  return guarded([&]() -> int64_t {
    const size_t places = static_cast<size_t>(streams) * static_cast<size_t>(columns);
    std::vector<int32_t> last(places, -1);  // the row of a column's last entry, within its stream
    std::vector<int64_t> next;              // where a column's next byte goes
    if (bytes) {
      int64_t total = 0;
      for (size_t c = 0; c < places; ++c) {
        next.push_back(total);
        total += counts[c];
      }
      if (total != size) throw Error{GOSSAMER_BAD_ARGUMENT};
    } else {
      fill(counts, static_cast<int64_t>(places), 0);
    }
    const int64_t line = by_column ? rows : columns, lines = by_column ? columns : rows;
    int64_t total = 0, stream = 0, at = 0, first = 0, before = -1;  // `at`: the line, which begins at `first`
    for (int64_t e = 0; e < entries; ++e) {
      if (positions[e] <= before) throw Error{GOSSAMER_UNSORTED};
      if (positions[e] >= line * lines || codes[e] >= sparse::kCodes) throw Error{GOSSAMER_OUT_OF_RANGE};
      before = positions[e];
      for (; before - first >= line; first += line) ++at;
      const int64_t row = by_column ? before - first : at, column = by_column ? at : before - first;
      if (row < starts[stream]) stream = 0;
      while (row >= starts[stream + 1]) ++stream;
      const auto place = static_cast<size_t>(stream * columns + column);
      const auto within = static_cast<int32_t>(row - starts[stream]);
      sparse::put_entry(within - last[place] - 1, codes[e], [&](uint8_t byte) {
        if (!bytes) {
          ++counts[place];
        } else if (next[place] < size) {
          bytes[next[place]++] = byte;
        }
        ++total;
      });
      last[place] = within;
    }
    if (bytes && total != size) throw Error{GOSSAMER_BAD_ARGUMENT};
    return total;
  });
}
