// A codec's motion vectors on a grid of cells, in one pass over the table.
#include "ffplug.h"

namespace {

constexpr index_t kColumns = 9;

struct Row {
  int64_t frame, source, width, height, x, y, motion_x, motion_y, scale;
};

inline index_t floor_div(index_t value, index_t by) { return value / by - (value % by < 0); }

}  // namespace

// table M x 9, distances N x 2 -> flow and size N x 2 x 2 x h x w, valid N x 2 x h x w, distance N x 2. Rows that say
// nonsense are dropped. Every thread has frames of its own and reads the whole table in order, so that later rows win.
FFPLUG_EXPORT void motion_vector_rasterize(const int64_t* table, const int64_t* distances, float* flow, uint8_t* valid,
                                           int64_t* distance, int16_t* size, index_t count, index_t frames,
                                           index_t rows, index_t columns, index_t cell) {
  static_assert(sizeof(Row) == kColumns * sizeof(int64_t), "a row of the table");
  const index_t plane = rows * columns, bands = std::max<index_t>(1, std::min<index_t>(frames, omp_get_max_threads()));
  const auto* vectors = reinterpret_cast<const Row*>(table);
#pragma omp parallel for
  for (index_t band = 0; band < bands; ++band) {
    const index_t begin = frames * band / bands, end = frames * (band + 1) / bands;
    std::fill(flow + begin * 4 * plane, flow + end * 4 * plane, 0.0f);
    std::fill(size + begin * 4 * plane, size + end * 4 * plane, int16_t(0));
    std::fill(valid + begin * 2 * plane, valid + end * 2 * plane, uint8_t(0));
    std::fill(distance + begin * 2, distance + end * 2, 0);
    for (index_t i = 0; i < count; ++i) {
      const Row& v = vectors[i];
      const bool sized = v.width > 0 && v.height > 0 && v.width < 32768 && v.height < 32768 && v.width % cell == 0 &&
                         v.height % cell == 0;
      if (v.frame < begin || v.frame >= end || v.source == 0 || !sized || v.scale <= 0) continue;
      const index_t field = v.frame * 2 + (v.source > 0);
      distance[field] = distances[field];
      const float moved_x = float(v.motion_x) / float(v.scale), moved_y = float(v.motion_y) / float(v.scale);
      const index_t left = floor_div(v.x - v.width / 2, cell), top = floor_div(v.y - v.height / 2, cell);
      const index_t right = std::min(left + v.width / cell, columns), bottom = std::min(top + v.height / cell, rows);
      for (index_t y = std::max<index_t>(top, 0); y < bottom; ++y)
        for (index_t x = std::max<index_t>(left, 0); x < right; ++x) {
          const index_t at = y * columns + x, first = field * 2 * plane + at;
          valid[field * plane + at] = 1;
          flow[first] = moved_x;
          flow[first + plane] = moved_y;
          size[first] = int16_t(v.width);
          size[first + plane] = int16_t(v.height);
        }
    }
  }
}
