// Look-up of windows in a correlation pyramid: from the stored volume, and on demand from the features.
#include "ffplug_cuda.h"

constexpr int kMaxSide = 16;  // integer neighbours along an axis: radius up to 7

struct Level {
  index_t height, width, start;
};

__device__ inline Level level_of(const int64_t* sizes, index_t level) {
  index_t start = 0;
  for (index_t l = 0; l < level; ++l) start += sizes[2 * l] * sizes[2 * l + 1];
  return {sizes[2 * level], sizes[2 * level + 1], start};
}

struct Target {
  index_t x, y;  // first integer neighbour
  scalar fx, fy;
};

__device__ inline index_t clamp_floor(scalar value, index_t low, index_t high) {
  if (!(value > scalar(low))) return low;
  return value < scalar(high) ? index_t(value) : high;
}

__device__ inline Target target_of(const scalar* flow, index_t width, index_t plane, index_t n, index_t cell,
                                   index_t level, const Level& map, index_t radius) {
  const scalar scale = scalar(1) / scalar(index_t(1) << level);
  const scalar x = (flow[n * 2 * plane + cell] + scalar(cell % width)) * scale;
  const scalar y = (flow[(n * 2 + 1) * plane + cell] + scalar(cell / width)) * scale;
  const scalar floor_x = floor(x), floor_y = floor(y);
  const index_t low = -2 * radius - 3;
  return {clamp_floor(floor_x, low, map.width + radius) - radius,
          clamp_floor(floor_y, low, map.height + radius) - radius, x - floor_x, y - floor_y};
}

__device__ inline bool inside(const Level& map, index_t x, index_t y) {
  return x >= 0 && x < map.width && y >= 0 && y < map.height;
}

// What integer neighbour (i, j) of a window gets from the gradients of the four offsets that read it.
__device__ inline scalar share_of(const scalar* grad, const Target& t, index_t i, index_t j, index_t offsets) {
  scalar sum = 0;
  for (index_t di = 0; di < 2; ++di)
    for (index_t dj = 0; dj < 2; ++dj) {
      const index_t oi = i - di, oj = j - dj;
      if (oi < 0 || oi >= offsets || oj < 0 || oj >= offsets) continue;
      sum += grad[oi * offsets + oj] * (di ? t.fx : 1 - t.fx) * (dj ? t.fy : 1 - t.fy);
    }
  return sum;
}

// One thread an output; neighbouring threads write neighbouring outputs of a cell.
FFPLUG_KERNEL corr_lookup(const scalar* volume, const scalar* flow, const int64_t* sizes, scalar* out, int64_t count,
                          int64_t plane, int64_t width, int64_t levels, int64_t radius, int64_t cells) {
  const index_t offsets = 2 * radius + 1, outputs = levels * offsets * offsets, thread = global_thread();
  if (thread >= count * plane * outputs) return;
  const index_t job = thread / outputs, level = thread % outputs / (offsets * offsets);
  const index_t i = thread / offsets % offsets, j = thread % offsets;
  const Level map = level_of(sizes, level);
  const Target t = target_of(flow, width, plane, job / plane, job % plane, level, map, radius);
  const scalar* own = volume + job * cells + map.start;
  scalar sum = 0;
  for (index_t di = 0; di < 2; ++di)
    for (index_t dj = 0; dj < 2; ++dj) {
      const index_t x = t.x + i + di, y = t.y + j + dj;
      if (inside(map, x, y)) sum += own[y * map.width + x] * (di ? t.fx : 1 - t.fx) * (dj ? t.fy : 1 - t.fy);
    }
  out[thread] = sum;
}

// One thread an integer neighbour; the gradient starts at zero.
FFPLUG_KERNEL corr_lookup_volume_backward(const scalar* grad, const scalar* flow, const int64_t* sizes,
                                          scalar* grad_volume, int64_t count, int64_t plane, int64_t width,
                                          int64_t levels, int64_t radius, int64_t cells) {
  const index_t offsets = 2 * radius + 1, side = offsets + 1, thread = global_thread();
  if (thread >= count * plane * levels * side * side) return;
  const index_t job = thread / (levels * side * side), level = thread / (side * side) % levels;
  const index_t j = thread / side % side, i = thread % side;
  const Level map = level_of(sizes, level);
  const Target t = target_of(flow, width, plane, job / plane, job % plane, level, map, radius);
  if (!inside(map, t.x + i, t.y + j)) return;
  grad_volume[job * cells + map.start + (t.y + j) * map.width + t.x + i] =
      share_of(grad + (job * levels + level) * offsets * offsets, t, i, j, offsets);
}

// The gradient of a target from the values of its integer neighbours, by one warp.
template <typename Value>
__device__ inline void add_slopes(Value value, const scalar* grad, const Target& t, index_t offsets, scalar factor,
                                  scalar* slope) {
  for (index_t k = threadIdx.x % 32; k < offsets * offsets; k += 32) {
    const index_t i = k / offsets, j = k % offsets;
    const scalar v00 = value(i, j), v10 = value(i + 1, j), v01 = value(i, j + 1), v11 = value(i + 1, j + 1);
    slope[0] += factor * grad[k] * ((1 - t.fy) * (v10 - v00) + t.fy * (v11 - v01));
    slope[1] += factor * grad[k] * ((1 - t.fx) * (v01 - v00) + t.fx * (v11 - v10));
  }
}

// One warp a cell.
FFPLUG_KERNEL corr_lookup_flow_backward(const scalar* grad, const scalar* volume, const scalar* flow,
                                        const int64_t* sizes, scalar* grad_flow, int64_t count, int64_t plane,
                                        int64_t width, int64_t levels, int64_t radius, int64_t cells) {
  const index_t offsets = 2 * radius + 1, job = global_thread() / 32;
  if (job >= count * plane) return;
  const index_t n = job / plane, cell = job % plane;
  scalar slope[2] = {0, 0};
  for (index_t level = 0; level < levels; ++level) {
    const Level map = level_of(sizes, level);
    const Target t = target_of(flow, width, plane, n, cell, level, map, radius);
    const scalar* own = volume + job * cells + map.start;
    const auto value = [&](index_t i, index_t j) {
      return inside(map, t.x + i, t.y + j) ? own[(t.y + j) * map.width + t.x + i] : scalar(0);
    };
    add_slopes(value, grad + (job * levels + level) * offsets * offsets, t, offsets,
               scalar(1) / scalar(index_t(1) << level), slope);
  }
  for (int c = 0; c < 2; ++c) {
    const scalar total = warp_sum(slope[c]);
    if (threadIdx.x % 32 == 0) grad_flow[(n * 2 + c) * plane + cell] = total;
  }
}

// Products of one query with the integer neighbours of its window in one level, by one warp, into shared memory.
__device__ inline void window_dots(const scalar* query, const scalar* table, const Level& map, const Target& t,
                                   index_t side, index_t channels, scalar* values) {
  const int lane = threadIdx.x % 32;
  for (index_t k = 0; k < side * side; ++k) {
    const index_t x = t.x + k % side, y = t.y + k / side;
    scalar sum = 0;
    if (inside(map, x, y)) {
      const scalar* near = table + (map.start + y * map.width + x) * channels;
      for (index_t c = lane; c < channels; c += 32) sum += query[c] * near[c];
    }
    sum = warp_sum(sum);
    if (lane == 0) values[k] = sum;
  }
  __syncwarp();
}

// One warp (a block of its own) a cell and level.
FFPLUG_KERNEL corr_lookup_on_demand(const scalar* query, const scalar* table, const scalar* flow, const int64_t* sizes,
                                    scalar* out, int64_t plane, int64_t width, int64_t channels, int64_t levels,
                                    int64_t radius, int64_t cells) {
  __shared__ scalar values[kMaxSide * kMaxSide];
  const index_t offsets = 2 * radius + 1, side = offsets + 1, job = blockIdx.x / levels, level = blockIdx.x % levels;
  const index_t n = job / plane;
  const Level map = level_of(sizes, level);
  const Target t = target_of(flow, width, plane, n, job % plane, level, map, radius);
  window_dots(query + job * channels, table + n * cells * channels, map, t, side, channels, values);
  for (index_t k = threadIdx.x; k < offsets * offsets; k += 32) {
    const index_t i = k / offsets, j = k % offsets;
    const scalar* v = values + j * side + i;
    const scalar top = v[0] + t.fx * (v[1] - v[0]), bottom = v[side] + t.fx * (v[side + 1] - v[side]);
    out[(job * levels + level) * offsets * offsets + k] = top + t.fy * (bottom - top);
  }
}

// One warp a cell: the gradient of its query, and of the table by atomics (either may be null).
FFPLUG_KERNEL corr_lookup_on_demand_backward(const scalar* grad, const scalar* query, const scalar* table,
                                             const scalar* flow, const int64_t* sizes, scalar* grad_query,
                                             scalar* grad_table, int64_t count, int64_t plane, int64_t width,
                                             int64_t channels, int64_t levels, int64_t radius, int64_t cells) {
  const index_t offsets = 2 * radius + 1, side = offsets + 1, job = global_thread() / 32;
  if (job >= count * plane) return;
  const index_t n = job / plane;
  for (index_t c = threadIdx.x % 32; c < channels; c += 32) {
    const scalar own = query[job * channels + c];
    scalar sum = 0;
    for (index_t level = 0; level < levels; ++level) {
      const Level map = level_of(sizes, level);
      const Target t = target_of(flow, width, plane, n, job % plane, level, map, radius);
      const scalar* window = grad + (job * levels + level) * offsets * offsets;
      for (index_t k = 0; k < side * side; ++k) {
        const index_t x = t.x + k % side, y = t.y + k / side;
        if (!inside(map, x, y)) continue;
        const scalar share = share_of(window, t, k % side, k / side, offsets);
        const index_t at = (n * cells + map.start + y * map.width + x) * channels + c;
        sum += share * table[at];
        if (grad_table) atomicAdd(grad_table + at, share * own);
      }
    }
    if (grad_query) grad_query[job * channels + c] = sum;
  }
}

// One warp (a block of its own) a cell.
FFPLUG_KERNEL corr_lookup_on_demand_flow_backward(const scalar* grad, const scalar* query, const scalar* table,
                                                  const scalar* flow, const int64_t* sizes, scalar* grad_flow,
                                                  int64_t plane, int64_t width, int64_t channels, int64_t levels,
                                                  int64_t radius, int64_t cells) {
  __shared__ scalar values[kMaxSide * kMaxSide];
  const index_t offsets = 2 * radius + 1, side = offsets + 1, job = blockIdx.x, n = job / plane, cell = job % plane;
  scalar slope[2] = {0, 0};
  for (index_t level = 0; level < levels; ++level) {
    const Level map = level_of(sizes, level);
    const Target t = target_of(flow, width, plane, n, cell, level, map, radius);
    __syncwarp();
    window_dots(query + job * channels, table + n * cells * channels, map, t, side, channels, values);
    const auto value = [&](index_t i, index_t j) { return values[j * side + i]; };
    add_slopes(value, grad + (job * levels + level) * offsets * offsets, t, offsets,
               scalar(1) / scalar(index_t(1) << level), slope);
  }
  for (int c = 0; c < 2; ++c) {
    const scalar total = warp_sum(slope[c]);
    if (threadIdx.x == 0) grad_flow[(n * 2 + c) * plane + cell] = total;
  }
}
