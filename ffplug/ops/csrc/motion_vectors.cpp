// A codec's motion vectors on a grid of cells: one pass over the table notes the last row on each cell, one over the
// cells fills them.
#include "ffplug.h"

namespace {

constexpr index_t kColumns = 9;

struct Row {
  int64_t frame, source, width, height, x, y, motion_x, motion_y, scale;
};

inline index_t floor_div(index_t value, index_t by) { return value / by - (value % by < 0); }

}  // namespace

// table M x 9, distances N x 2, owner N x 2 x h x w (scratch) -> flow and size N x 2 x 2 x h x w, valid N x 2 x h x w,
// distance N x 2. Rows that say nonsense are dropped.
FFPLUG_EXPORT void motion_vector_rasterize(const int64_t* table, const int64_t* distances, int64_t* owner, float* flow,
                                           uint8_t* valid, int64_t* distance, int16_t* size, index_t count,
                                           index_t frames, index_t rows, index_t columns, index_t cell) {
  static_assert(sizeof(Row) == kColumns * sizeof(int64_t), "a row of the table");
  const index_t plane = rows * columns;
  const auto* vectors = reinterpret_cast<const Row*>(table);
  std::fill(owner, owner + frames * 2 * plane, -1);
  std::fill(distance, distance + frames * 2, 0);
  for (index_t i = 0; i < count; ++i) {
    const Row& v = vectors[i];
    const bool sized = v.width > 0 && v.height > 0 && v.width < 32768 && v.height < 32768 && v.width % cell == 0 &&
                       v.height % cell == 0;
    if (v.frame < 0 || v.frame >= frames || v.source == 0 || !sized || v.scale <= 0) continue;
    const index_t field = v.frame * 2 + (v.source > 0);
    distance[field] = distances[field];
    const index_t left = floor_div(v.x - v.width / 2, cell), top = floor_div(v.y - v.height / 2, cell);
    const index_t right = std::min(left + v.width / cell, columns), bottom = std::min(top + v.height / cell, rows);
    for (index_t y = std::max<index_t>(top, 0); y < bottom; ++y)
      for (index_t x = std::max<index_t>(left, 0); x < right; ++x) owner[field * plane + y * columns + x] = i;
  }
#pragma omp parallel for
  for (index_t field = 0; field < frames * 2; ++field)
    for (index_t at = 0; at < plane; ++at) {
      const index_t i = owner[field * plane + at];
      const Row none = {0, 0, 0, 0, 0, 0, 0, 0, 1};
      const Row& v = i < 0 ? none : vectors[i];
      const index_t first = field * 2 * plane + at, second = first + plane;
      valid[field * plane + at] = i >= 0;
      flow[first] = float(v.motion_x) / float(v.scale);
      flow[second] = float(v.motion_y) / float(v.scale);
      size[first] = int16_t(v.width);
      size[second] = int16_t(v.height);
    }
}
