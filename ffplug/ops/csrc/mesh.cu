// Z-buffer of triangles: a block a tile of 16 x 16 pixels, which goes through the triangles that touch it.
//
// Coverage and depth in double and without fused multiply-adds, as on the CPU.
#include "ffplug_cuda.h"

constexpr int kRecord = 16;  // ax, ay, dx, dy, 1/depth of three edges and corners; the closed edges as bits
constexpr int kTile = 16;

__device__ inline bool is_finite(double value) { return value - value == 0; }

__device__ inline double edge_value(double ax, double ay, double dx, double dy, double x, double y) {
  return __dsub_rn(__dmul_rn(dx, __dsub_rn(y, ay)), __dmul_rn(dy, __dsub_rn(x, ax)));
}

__device__ inline index_t clamp_index(double value, index_t low, index_t high) {
  return value <= double(low) ? low : value >= double(high) ? high : index_t(value);
}

// One thread a triangle: its record and its box (x0, x1, y0, y1), empty for what is not drawn.
FFPLUG_KERNEL mesh_set_up(const scalar* vertices, const int64_t* faces, double* records, int64_t* boxes, int64_t count,
                          int64_t points, int64_t number, int64_t height, int64_t width, double near) {
  const index_t thread = global_thread();
  if (thread >= count * number) return;
  const int64_t* corner = faces + thread % number * 3;
  double* record = records + thread * kRecord;
  int64_t* box = boxes + thread * 4;
  box[0] = box[2] = 0;
  box[1] = box[3] = -1;
  double x[3], y[3];
  for (int k = 0; k < 3; ++k) {
    const scalar* at = vertices + (thread / number * points + corner[k]) * 3;
    x[k] = at[0];
    y[k] = at[1];
    if (!is_finite(x[k]) || !is_finite(y[k]) || !is_finite(at[2]) || !(at[2] > near)) return;
    record[12 + k] = 1.0 / double(at[2]);
  }
  const double area = __dsub_rn(__dmul_rn(x[1] - x[0], y[2] - y[0]), __dmul_rn(y[1] - y[0], x[2] - x[0]));
  if (area == 0) return;
  int closed = 0;
  for (int k = 0; k < 3; ++k) {
    int from = (k + 1) % 3, to = (k + 2) % 3;
    double sign = area > 0 ? 1 : -1;
    if (x[from] > x[to] || (x[from] == x[to] && y[from] > y[to])) {
      const int other = from;
      from = to;
      to = other;
      sign = -sign;
    }
    const double dx = sign * (x[to] - x[from]), dy = sign * (y[to] - y[from]);
    record[k * 4] = x[from];
    record[k * 4 + 1] = y[from];
    record[k * 4 + 2] = dx;
    record[k * 4 + 3] = dy;
    if (dy < 0 || (dy == 0 && dx > 0)) closed |= 1 << k;
  }
  record[15] = closed;
  box[0] = clamp_index(ceil(min(min(x[0], x[1]), x[2])), 0, width);
  box[1] = clamp_index(floor(max(max(x[0], x[1]), x[2])), -1, width - 1);
  box[2] = clamp_index(ceil(min(min(y[0], y[1]), y[2])), 0, height);
  box[3] = clamp_index(floor(max(max(y[0], y[1]), y[2])), -1, height - 1);
}

FFPLUG_KERNEL mesh_rasterize(const double* records, const int64_t* boxes, scalar* barycentrics, scalar* depth,
                             int* triangle, int64_t number, int64_t height, int64_t width) {
  __shared__ int list[kTile * kTile];
  __shared__ int length;
  const index_t left = blockIdx.x * kTile, top = blockIdx.y * kTile, first = blockIdx.z * number;
  const index_t x = left + threadIdx.x % kTile, y = top + threadIdx.x / kTile;
  double best = 0, corner[3] = {0, 0, 0};
  int winner = -1;
  for (index_t start = 0; start < number; start += kTile * kTile) {
    if (threadIdx.x == 0) length = 0;
    __syncthreads();
    const index_t mine = start + threadIdx.x;
    if (mine < number) {
      const int64_t* box = boxes + (first + mine) * 4;
      if (box[0] < left + kTile && box[1] >= left && box[2] < top + kTile && box[3] >= top)
        list[atomicAdd(&length, 1)] = int(mine);
    }
    __syncthreads();
    const int found = length;
    for (int i = 0; i < found; ++i) {
      const double* record = records + (first + list[i]) * kRecord;
      const int closed = int(record[15]);
      double edge[3];
      bool inside = true;
      for (int k = 0; k < 3; ++k) {
        const double* own = record + k * 4;
        edge[k] = edge_value(own[0], own[1], own[2], own[3], double(x), double(y));
        inside = inside && (edge[k] > 0 || (edge[k] == 0 && (closed >> k & 1)));
      }
      if (!inside) continue;
      double part[3];
      for (int k = 0; k < 3; ++k) part[k] = __dmul_rn(edge[k], record[12 + k]);
      const double sum = __dadd_rn(__dadd_rn(part[0], part[1]), part[2]);
      const double z = __dadd_rn(__dadd_rn(edge[0], edge[1]), edge[2]) / sum;
      // The list has no order: a tie goes to the lowest index by name.
      if (winner < 0 || z < best || (z == best && list[i] < winner)) {
        best = z;
        winner = list[i];
        for (int k = 0; k < 3; ++k) corner[k] = part[k] * (1.0 / sum);
      }
    }
    __syncthreads();
  }
  if (x >= width || y >= height) return;
  const index_t at = (blockIdx.z * height + y) * width + x;
  triangle[at] = winner;
  depth[at] = scalar(best);
  for (int k = 0; k < 3; ++k) barycentrics[at * 3 + k] = scalar(corner[k]);
}

__device__ inline double lanes_sum(double value) {
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_down_sync(0xffffffffu, value, offset);
  return value;
}

// One warp a triangle, over its box: what its three corners get from the pixels it won, N x F x 3 x 3.
FFPLUG_KERNEL mesh_rasterize_backward(const scalar* grad_barycentrics, const scalar* grad_depth,
                                      const scalar* vertices, const int64_t* faces, const int64_t* boxes,
                                      const int* triangle, double* shares, int64_t count, int64_t points,
                                      int64_t number, int64_t height, int64_t width) {
  const index_t warp = global_thread() / 32, lane = threadIdx.x % 32;
  if (warp >= count * number) return;
  const index_t n = warp / number, face = warp % number;
  const int64_t* box = boxes + warp * 4;
  const index_t columns = box[1] - box[0] + 1, rows = box[3] - box[2] + 1;
  double x[3], y[3], inverse[3], share[9] = {0, 0, 0, 0, 0, 0, 0, 0, 0};
  for (int k = 0; k < 3; ++k) {
    const scalar* at = vertices + (n * points + faces[face * 3 + k]) * 3;
    x[k] = at[0];
    y[k] = at[1];
    inverse[k] = 1.0 / double(at[2]);
  }
  for (index_t i = lane; columns > 0 && rows > 0 && i < columns * rows; i += 32) {
    const index_t column = box[0] + i % columns, row = box[2] + i / columns, at = (n * height + row) * width + column;
    if (triangle[at] != face) continue;
    double edge[3], part[3], sum = 0, area = 0;
    for (int k = 0; k < 3; ++k) {
      const int a = (k + 1) % 3, b = (k + 2) % 3;
      edge[k] = (x[b] - x[a]) * (row - y[a]) - (y[b] - y[a]) * (column - x[a]);
      part[k] = edge[k] * inverse[k];
      sum += part[k];
      area += edge[k];
    }
    const scalar* outer = grad_barycentrics + at * 3;
    double mean = grad_depth[at] * area / sum;
    for (int k = 0; k < 3; ++k) mean += outer[k] * part[k] / sum;
    for (int k = 0; k < 3; ++k) {
      const int a = (k + 1) % 3, b = (k + 2) % 3;
      const double to_part = (outer[k] - mean) / sum, to_edge = to_part * inverse[k] + grad_depth[at] / sum;
      share[k * 3 + 2] -= to_part * edge[k] * inverse[k] * inverse[k];
      share[a * 3] += to_edge * (y[b] - row);
      share[a * 3 + 1] += to_edge * (column - x[b]);
      share[b * 3] += to_edge * (row - y[a]);
      share[b * 3 + 1] += to_edge * (x[a] - column);
    }
  }
  for (int k = 0; k < 9; ++k) {
    const double total = lanes_sum(share[k]);
    if (lane == 0) shares[warp * 9 + k] = total;
  }
}
