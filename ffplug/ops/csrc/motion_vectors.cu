// A codec's motion vectors on a grid of cells: a thread a row of the table to claim cells, a thread a cell to fill it.
#include "ffplug_cuda.h"

struct Row {
  int64_t frame, source, width, height, x, y, motion_x, motion_y, scale;
};

__device__ inline index_t floor_div(index_t value, index_t by) { return value / by - (value % by < 0); }

// owner N x 2 x h x w holds -1, present N x 2 zeros; the last row of the table on a cell wins. Nonsense is dropped.
FFPLUG_KERNEL claim_cells(const int64_t* table, int* owner, int64_t* present, int64_t count, int64_t frames,
                          int64_t rows, int64_t columns, int64_t cell) {
  const index_t i = global_thread();
  if (i >= count) return;
  const Row v = reinterpret_cast<const Row*>(table)[i];
  const bool sized = v.width > 0 && v.height > 0 && v.width < 32768 && v.height < 32768 && v.width % cell == 0 &&
                     v.height % cell == 0;
  if (v.frame < 0 || v.frame >= frames || v.source == 0 || !sized || v.scale <= 0) return;
  const index_t field = v.frame * 2 + (v.source > 0);
  present[field] = 1;
  const index_t left = floor_div(v.x - v.width / 2, cell), top = floor_div(v.y - v.height / 2, cell);
  for (index_t y = top < 0 ? 0 : top; y < top + v.height / cell && y < rows; ++y)
    for (index_t x = left < 0 ? 0 : left; x < left + v.width / cell && x < columns; ++x)
      atomicMax(owner + (field * rows + y) * columns + x, static_cast<int>(i));
}

FFPLUG_KERNEL fill_cells(const int64_t* table, const int* owner, float* flow, unsigned char* valid, short* size,
                         int64_t frames, int64_t rows, int64_t columns, int64_t cell) {
  const index_t thread = global_thread(), plane = rows * columns;
  if (thread >= frames * 2 * plane) return;
  const index_t field = thread / plane, first = field * 2 * plane + thread % plane, second = first + plane;
  const int i = owner[thread];
  const Row none = {0, 0, 0, 0, 0, 0, 0, 0, 1};
  const Row v = i < 0 ? none : reinterpret_cast<const Row*>(table)[i];
  valid[thread] = i >= 0;
  flow[first] = static_cast<float>(v.motion_x) / static_cast<float>(v.scale);
  flow[second] = static_cast<float>(v.motion_y) / static_cast<float>(v.scale);
  size[first] = static_cast<short>(v.width);
  size[second] = static_cast<short>(v.height);
}
