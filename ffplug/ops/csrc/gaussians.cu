// Compositing of projected Gaussians: a block a tile of 16 x 16 pixels, records through shared memory.
#include "ffplug_cuda.h"

constexpr int kTile = 16;
constexpr int kThreads = kTile * kTile;
constexpr int kRecord = 7;  // x, y, conic a, b, c, opacity, greatest exponent
constexpr int kChunk = 8;   // channels of a block
constexpr int kRay = 21;

__device__ inline index_t clamp_pixel(double value, index_t low, index_t high) {
  return value <= double(low) ? low : value >= double(high) ? high : index_t(value);
}

// One thread a Gaussian, in depth order: its record, the tiles it can reach (x0, x1, y0, y1) and their number.
FFPLUG_KERNEL gaussian_set_up(const scalar* means, const scalar* conics, const scalar* opacities, const int64_t* order,
                              scalar* records, int* boxes, int64_t* counts, int64_t number, int64_t height,
                              int64_t width, double alpha_min) {
  const index_t rank = global_thread();
  if (rank >= number) return;
  const index_t id = order[rank];
  scalar* record = records + rank * kRecord;
  int* box = boxes + rank * 4;
  record[0] = means[id * 2];
  record[1] = means[id * 2 + 1];
  for (int k = 0; k < 3; ++k) record[2 + k] = conics[id * 3 + k];
  record[5] = opacities[id];
  record[6] = 0;
  box[0] = box[2] = counts[rank] = 0;
  box[1] = box[3] = -1;
  const double x = record[0], y = record[1], a = record[2], b = record[3], c = record[4], opacity = record[5];
  const double det = a * c - b * b;
  const bool finite = x - x == 0 && y - y == 0 && det - det == 0 && opacity - opacity == 0;
  if (!finite || !(record[5] >= scalar(alpha_min)) || !(a > 0) || !(det > 0)) return;
  // The slack leaves the decision at the border to alpha itself.
  const double reach = log(opacity / alpha_min) + 1e-3;
  record[6] = scalar(reach * 1.001);
  const double rx = sqrt(2 * reach * c / det) * 1.001 + 0.01, ry = sqrt(2 * reach * a / det) * 1.001 + 0.01;
  const index_t left = clamp_pixel(ceil(x - rx - 0.5), 0, width);
  const index_t right = clamp_pixel(floor(x + rx - 0.5), -1, width - 1);
  const index_t top = clamp_pixel(ceil(y - ry - 0.5), 0, height);
  const index_t bottom = clamp_pixel(floor(y + ry - 0.5), -1, height - 1);
  if (left > right || top > bottom) return;
  box[0] = int(left / kTile);
  box[1] = int(right / kTile);
  box[2] = int(top / kTile);
  box[3] = int(bottom / kTile);
  counts[rank] = int64_t(box[1] - box[0] + 1) * (box[3] - box[2] + 1);
}

// One thread a Gaussian: its pairs with tiles, from the end of the one before.
FFPLUG_KERNEL gaussian_emit(const int* boxes, const int64_t* ends, int* tiles, int* ranks, int64_t number,
                            int64_t columns) {
  const index_t rank = global_thread();
  if (rank >= number) return;
  const int* box = boxes + rank * 4;
  index_t at = rank ? ends[rank - 1] : 0;
  for (index_t row = box[2]; row <= box[3]; ++row)
    for (index_t column = box[0]; column <= box[1]; ++column, ++at) {
      tiles[at] = int(row * columns + column);
      ranks[at] = int(rank);
    }
}

struct Batch {
  scalar record[kThreads][kRecord];
  index_t id[kThreads];
};

// Every thread brings one record of the tile's list; returns how many there are.
__device__ inline int fetch(Batch& batch, const scalar* records, const int64_t* order, const int* ranks, index_t start,
                            index_t end) {
  __syncthreads();
  const index_t mine = start + threadIdx.x;
  if (mine < end) {
    const index_t rank = ranks[mine];
    for (int k = 0; k < kRecord; ++k) batch.record[threadIdx.x][k] = records[rank * kRecord + k];
    batch.id[threadIdx.x] = order[rank];
  }
  __syncthreads();
  return int(end - start < kThreads ? end - start : kThreads);
}

struct Pixel {
  scalar light, alpha, raw, before, dx, dy;
  bool alive;
};

// Whether the Gaussian adds to the pixel; then alpha, raw (before the clamp) and the light before it are set.
__device__ inline bool pass(Pixel& p, const scalar* record, index_t x, index_t y, scalar alpha_max, scalar alpha_min,
                            scalar stop) {
  if (!p.alive) return false;
  p.dx = scalar(x) + scalar(0.5) - record[0];
  p.dy = scalar(y) + scalar(0.5) - record[1];
  const scalar along = p.dx * (p.dx * (record[2] * scalar(0.5)) + record[3] * p.dy);
  const scalar sigma = along + record[4] * p.dy * p.dy * scalar(0.5);
  if (!(sigma <= record[6])) return false;
  p.raw = record[5] * exp(-sigma);
  p.alpha = p.raw < alpha_max ? p.raw : alpha_max;
  if (!(p.alpha >= alpha_min)) return false;
  const scalar after = p.light * (1 - p.alpha);
  if (after <= stop) {
    p.alive = false;
    return false;
  }
  p.before = p.light;
  p.light = after;
  return true;
}

// blockIdx.z takes eight channels; the first also writes alpha, contributors, median and top.
FFPLUG_KERNEL gaussian_composite(const scalar* records, const int64_t* order, const int* ranks, const int64_t* first,
                                 const scalar* features, const scalar* background, scalar* image, scalar* opaque,
                                 int* contributors, int* median, int* top, int64_t channels, int64_t height,
                                 int64_t width, double alpha_max, double alpha_min, double stop) {
  __shared__ Batch batch;
  const index_t x = blockIdx.x * kTile + threadIdx.x % kTile, y = blockIdx.y * kTile + threadIdx.x / kTile;
  const index_t tile = blockIdx.y * gridDim.x + blockIdx.x, channel = blockIdx.z * kChunk;
  const int own = int(channels - channel < kChunk ? channels - channel : kChunk);
  Pixel p;
  p.light = 1;
  p.alive = x < width && y < height;
  scalar sum[kChunk] = {0, 0, 0, 0, 0, 0, 0, 0}, best = 0;
  int count = 0, half = -1, winner = -1;
  for (index_t start = first[tile]; start < first[tile + 1]; start += kThreads) {
    if (__syncthreads_count(p.alive) == 0) break;
    const int number = fetch(batch, records, order, ranks, start, first[tile + 1]);
    for (int i = 0; i < number && p.alive; ++i) {
      if (!pass(p, batch.record[i], x, y, alpha_max, alpha_min, stop)) continue;
      const index_t id = batch.id[i];
      const scalar weight = p.alpha * p.before;
#pragma unroll
      for (int c = 0; c < kChunk; ++c)
        if (c < own) sum[c] += weight * features[id * channels + channel + c];
      ++count;
      if (weight > best) {
        best = weight;
        winner = int(id);
      }
      if (p.before > scalar(0.5)) half = int(id);
    }
  }
  if (x >= width || y >= height) return;
  const index_t at = y * width + x;
  for (int c = 0; c < own; ++c)
    image[(channel + c) * height * width + at] = sum[c] + p.light * background[channel + c];
  if (blockIdx.z > 0) return;
  opaque[at] = 1 - p.light;
  contributors[at] = count;
  median[at] = half;
  top[at] = winner;
}

FFPLUG_KERNEL gaussian_ray_flow(const scalar* records, const int64_t* order, const int* ranks, const int64_t* first,
                                const scalar* rays, scalar* flow, int64_t height, int64_t width, double alpha_max,
                                double alpha_min, double stop) {
  __shared__ Batch batch;
  const index_t x = blockIdx.x * kTile + threadIdx.x % kTile, y = blockIdx.y * kTile + threadIdx.x / kTile;
  const index_t tile = blockIdx.y * gridDim.x + blockIdx.x;
  Pixel p;
  p.light = 1;
  p.alive = x < width && y < height;
  scalar sum[2] = {0, 0};
  for (index_t start = first[tile]; start < first[tile + 1]; start += kThreads) {
    if (__syncthreads_count(p.alive) == 0) break;
    const int number = fetch(batch, records, order, ranks, start, first[tile + 1]);
    for (int i = 0; i < number && p.alive; ++i) {
      if (!pass(p, batch.record[i], x, y, alpha_max, alpha_min, stop)) continue;
      const scalar *c = rays + batch.id[i] * kRay, *q = c + 3, *a = c + 9, *shift = c + 18;
      const scalar dx = p.dx, dy = p.dy;
      const scalar n = dx * c[0] + (c[1] * dy + c[2]);
      const scalar m = dx * (dx * q[0] + 2 * (q[1] * dy + q[2])) + (q[3] * dy * dy + 2 * q[4] * dy + q[5]);
      scalar to[3];
      for (int k = 0; k < 3; ++k) to[k] = n / m * (dx * a[k * 3] + (a[k * 3 + 1] * dy + a[k * 3 + 2])) + shift[k];
      sum[0] += p.alpha * p.before * (to[0] / to[2] - dx);
      sum[1] += p.alpha * p.before * (to[1] / to[2] - dy);
    }
  }
  if (x >= width || y >= height) return;
  for (int c = 0; c < 2; ++c) flow[(c * height + y) * width + x] = sum[c];
}

// Front to back once more; what lies behind a Gaussian is the pixel's total less what came before. A warp adds up its
// pixels, then adds to the Gaussian's gradient.
FFPLUG_KERNEL gaussian_composite_backward(const scalar* grad_image, const scalar* grad_alpha, const scalar* records,
                                          const int64_t* order, const int* ranks, const int64_t* first,
                                          const scalar* features, const scalar* background, const scalar* image,
                                          const scalar* opaque, scalar* grad_means, scalar* grad_conics,
                                          scalar* grad_opacities, scalar* grad_features, int64_t channels,
                                          int64_t height, int64_t width, double alpha_max, double alpha_min,
                                          double stop) {
  __shared__ Batch batch;
  const index_t x = blockIdx.x * kTile + threadIdx.x % kTile, y = blockIdx.y * kTile + threadIdx.x / kTile;
  const index_t tile = blockIdx.y * gridDim.x + blockIdx.x, plane = height * width, at = y * width + x;
  const bool lead = threadIdx.x % 32 == 0;
  Pixel p;
  p.light = 1;
  p.alive = x < width && y < height;
  const scalar outer_alpha = p.alive ? grad_alpha[at] : 0;
  scalar behind = p.alive ? outer_alpha * opaque[at] : 0;
  for (index_t c = 0; c < channels && p.alive; ++c)
    behind += grad_image[c * plane + at] * (image[c * plane + at] - background[c]);
  for (index_t start = first[tile]; start < first[tile + 1]; start += kThreads) {
    if (__syncthreads_count(p.alive) == 0) break;
    const int number = fetch(batch, records, order, ranks, start, first[tile + 1]);
    for (int i = 0; i < number; ++i) {
      const bool keep = pass(p, batch.record[i], x, y, alpha_max, alpha_min, stop);
      if (!__any_sync(0xffffffffu, keep)) continue;
      const scalar* record = batch.record[i];
      const index_t id = batch.id[i];
      const scalar weight = keep ? p.alpha * p.before : 0;
      scalar gain = outer_alpha;
      for (index_t c = 0; c < channels; ++c) {
        const scalar slope = keep ? grad_image[c * plane + at] : 0;
        gain += slope * (features[id * channels + c] - background[c]);
        const scalar total = warp_sum(weight * slope);
        if (lead) atomicAdd(grad_features + id * channels + c, total);
      }
      behind -= weight * gain;
      scalar to_sigma = 0;
      if (keep && p.raw <= scalar(alpha_max)) to_sigma = -p.alpha * (p.before * gain - behind / (1 - p.alpha));
      const scalar dx = keep ? p.dx : 0, dy = keep ? p.dy : 0;
      const scalar sx = warp_sum(to_sigma * dx), sy = warp_sum(to_sigma * dy);
      const scalar sxx = warp_sum(to_sigma * dx * dx), sxy = warp_sum(to_sigma * dx * dy);
      const scalar syy = warp_sum(to_sigma * dy * dy), total = warp_sum(to_sigma);
      if (!lead) continue;
      atomicAdd(grad_means + id * 2, -(record[2] * sx + record[3] * sy));
      atomicAdd(grad_means + id * 2 + 1, -(record[3] * sx + record[4] * sy));
      atomicAdd(grad_conics + id * 3, sxx / 2);
      atomicAdd(grad_conics + id * 3 + 1, sxy);
      atomicAdd(grad_conics + id * 3 + 2, syy / 2);
      atomicAdd(grad_opacities + id, -total / record[5]);
    }
  }
}
