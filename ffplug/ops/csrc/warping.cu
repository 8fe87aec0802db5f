// Bilinear sampling along a flow, its adjoint (splatting) and its slope; and the nearest moved cell of a flow.
#include "ffplug_cuda.h"

// Channels of one pixel that one thread handles in turn.
constexpr int kChannels = 4;

// One axis: weights of `base` and `base + 1`, with base in 0..size-2 (0 where size is 1), and their derivatives. A tap
// outside the image has weight 0.
struct Axis {
  index_t base;
  scalar weight[2], slope[2];
};

__device__ inline Axis find_taps(scalar at, index_t size, bool border) {
  const scalar lowest = border ? 0 : -2, highest = border ? size - 1 : size + 1;
  scalar kept = at > lowest ? at : lowest;  // the comparison lets NaN through to `lowest`, a place outside
  kept = kept < highest ? kept : highest;
  const bool moves = !border || (at > lowest && at < highest);
  index_t below = static_cast<index_t>(kept);
  below -= static_cast<scalar>(below) > kept;
  const scalar fraction = kept - static_cast<scalar>(below);
  Axis axis = {};
  axis.base = below < 0 || size == 1 ? 0 : (below > size - 2 ? size - 2 : below);
  for (int k = 0; k < 2; ++k) {
    const index_t tap = below + k;
    if (tap < 0 || tap >= size) continue;
    axis.weight[tap - axis.base] = k ? fraction : 1 - fraction;
    axis.slope[tap - axis.base] = moves ? (k ? 1 : -1) : 0;
  }
  return axis;
}

struct Pixel {
  index_t n, y, x, at;
  Axis across, down;
};

__device__ inline Pixel find_pixel(const scalar* flow, index_t pixel, index_t height, index_t width, bool border) {
  Pixel p;
  p.x = pixel % width;
  p.y = pixel / width % height;
  p.n = pixel / width / height;
  p.at = (p.n * 2 * height + p.y) * width + p.x;
  p.across = find_taps(p.x + flow[p.at], width, border);
  p.down = find_taps(p.y + flow[p.at + height * width], height, border);
  return p;
}

// The pixel and the first channel of this thread; neighbouring threads have neighbouring memory in either layout.
__device__ inline bool find_work(index_t pixels, index_t channels, bool last, index_t& pixel, index_t& channel) {
  const index_t groups = (channels + kChannels - 1) / kChannels, thread = global_thread();
  if (thread >= pixels * groups) return false;
  pixel = last ? thread / groups : thread % pixels;
  channel = (last ? thread % groups : thread / pixels) * kChannels;
  return true;
}

FFPLUG_KERNEL bilinear_gather(const scalar* image, const scalar* flow, scalar* out, int64_t sample, int64_t channel,
                              int64_t row, int64_t column, int64_t out_sample, int64_t out_channel, int64_t out_row,
                              int64_t out_column, int64_t count, int64_t channels, int64_t height, int64_t width,
                              int64_t border, int64_t last) {
  index_t pixel, first;
  if (!find_work(count * height * width, channels, last, pixel, first)) return;
  const Pixel p = find_pixel(flow, pixel, height, width, border);
  const index_t below = height > 1 ? row : 0, beside = width > 1 ? column : 0;
  for (index_t c = first; c < first + kChannels && c < channels; ++c) {
    const scalar* at = image + p.n * sample + c * channel + p.down.base * row + p.across.base * column;
    out[p.n * out_sample + c * out_channel + p.y * out_row + p.x * out_column] =
        p.down.weight[0] * (p.across.weight[0] * at[0] + p.across.weight[1] * at[beside]) +
        p.down.weight[1] * (p.across.weight[0] * at[below] + p.across.weight[1] * at[below + beside]);
  }
}

// Into an `out` of zeros.
FFPLUG_KERNEL bilinear_scatter(const scalar* image, const scalar* flow, scalar* out, int64_t sample, int64_t channel,
                               int64_t row, int64_t column, int64_t out_sample, int64_t out_channel, int64_t out_row,
                               int64_t out_column, int64_t count, int64_t channels, int64_t height, int64_t width,
                               int64_t border, int64_t last) {
  index_t pixel, first;
  if (!find_work(count * height * width, channels, last, pixel, first)) return;
  const Pixel p = find_pixel(flow, pixel, height, width, border);
  for (index_t c = first; c < first + kChannels && c < channels; ++c) {
    const scalar value = image[p.n * sample + c * channel + p.y * row + p.x * column];
    scalar* at = out + p.n * out_sample + c * out_channel + p.down.base * out_row + p.across.base * out_column;
    for (int k = 0; k < 4; ++k) {
      const scalar weight = p.down.weight[k / 2] * p.across.weight[k % 2];
      if (weight != 0) atomicAdd(at + (k / 2) * out_row + (k % 2) * out_column, weight * value);
    }
  }
}

// One thread a pixel, or one warp a pixel where channels lie together (`last`).
FFPLUG_KERNEL bilinear_slope(const scalar* image, const scalar* flow, const scalar* weight, scalar* slope,
                             int64_t sample, int64_t channel, int64_t row, int64_t column, int64_t weight_sample,
                             int64_t weight_channel, int64_t weight_row, int64_t weight_column, int64_t count,
                             int64_t channels, int64_t height, int64_t width, int64_t border, int64_t last) {
  const index_t lanes = last ? 32 : 1, lane = global_thread() % lanes, pixel = global_thread() / lanes;
  if (pixel >= count * height * width) return;
  const Pixel p = find_pixel(flow, pixel, height, width, border);
  const index_t below = height > 1 ? row : 0, beside = width > 1 ? column : 0;
  scalar sum[4] = {0, 0, 0, 0};
  for (index_t c = lane; c < channels; c += lanes) {
    const scalar own = weight[p.n * weight_sample + c * weight_channel + p.y * weight_row + p.x * weight_column];
    const scalar* at = image + p.n * sample + c * channel + p.down.base * row + p.across.base * column;
    for (int k = 0; k < 4; ++k) sum[k] += own * at[(k / 2) * below + (k % 2) * beside];
  }
  if (last)
    for (int k = 0; k < 4; ++k) sum[k] = warp_sum(sum[k]);
  if (lane != 0) return;
  const Axis &a = p.across, &d = p.down;
  slope[p.at] = d.weight[0] * (a.slope[0] * sum[0] + a.slope[1] * sum[1]) +
                d.weight[1] * (a.slope[0] * sum[2] + a.slope[1] * sum[3]);
  slope[p.at + height * width] = d.slope[0] * (a.weight[0] * sum[0] + a.weight[1] * sum[1]) +
                                 d.slope[1] * (a.weight[0] * sum[2] + a.weight[1] * sum[3]);
}

// One thread a cell: bucket rows outwards from its own, in each the buckets with cells outwards from its column, as long
// as one could hold a nearer cell. A bucket at distance k holds only points farther than k - 0.501.
FFPLUG_KERNEL forward_warp_flow(const scalar* flow, scalar* out, const int64_t* cell, const int64_t* start,
                                const int64_t* left, const int64_t* right, int64_t count, int64_t height,
                                int64_t width) {
  const index_t thread = global_thread(), plane = height * width, rows = height + 1, columns = width + 1;
  if (thread >= count * plane) return;
  const index_t x = thread % width, y = thread / width % height, n = thread / plane;
  const scalar* own = flow + n * 2 * plane;
  double best = 1e300;
  index_t nearest = -1;
  for (index_t k = 0; k < 2 * rows; ++k) {
    const index_t step = k / 2, row = k % 2 ? y - step : y + step;
    const double vertical = step > 0 ? step - 0.501 : 0;
    if (vertical * vertical > best) break;
    if (row < 0 || row >= rows || k == 1) continue;
    const index_t at = (n * rows + row) * columns;
    for (int side = 0; side < 2; ++side) {
      index_t b = side == 0 ? right[at + x] : (x > 0 ? left[at + x - 1] : -1);
      while (b >= 0 && b < columns) {
        const index_t apart = b > x ? b - x : x - b;
        const double horizontal = apart > 0 ? apart - 0.501 : 0;
        if (horizontal * horizontal + vertical * vertical > best) break;
        for (index_t p = start[at + b]; p < start[at + b + 1]; ++p) {
          const index_t i = cell[p] - n * plane;
          const float moved_x = static_cast<float>(i % width) + static_cast<float>(own[i]);
          const float moved_y = static_cast<float>(i / width) + static_cast<float>(own[plane + i]);
          const double dx = static_cast<float>(x) - moved_x, dy = static_cast<float>(y) - moved_y;
          const double distance = dx * dx + dy * dy;
          if (distance < best || (distance == best && i < nearest)) best = distance, nearest = i;
        }
        if (side == 0)
          b = b + 1 < columns ? right[at + b + 1] : columns;
        else
          b = b > 0 ? left[at + b - 1] : -1;
      }
    }
  }
  for (int c = 0; c < 2; ++c) out[(n * 2 + c) * plane + y * width + x] = nearest < 0 ? 0 : own[c * plane + nearest];
}
