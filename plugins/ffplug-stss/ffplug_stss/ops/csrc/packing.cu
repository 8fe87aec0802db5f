// The network's input from the history in one pass, and the motion of what covered each pixel's earlier place.
#include "ffplug_cuda.h"

#define STSS_FUNCTION __device__ inline
#include "packing.h"

// One thread a pixel of the filled-up frame.
FFPLUG_KERNEL warp_pack(const scalar* feature, const scalar* image0, const scalar* image1, const scalar* image2,
                        const scalar* depth0, const scalar* depth1, const scalar* depth2, const int64_t* label0,
                        const int64_t* label1, const int64_t* label2, const scalar* motion0, const scalar* motion1,
                        const scalar* motion2, const scalar* motion3, const scalar* motion4, const scalar* motion5,
                        const scalar* motion6, const scalar* motion7, const int64_t* label, const scalar* fetch,
                        scalar* out, int64_t steps0, int64_t steps1, int64_t steps2, int64_t frames, int64_t count,
                        int64_t height, int64_t width, int64_t rows, int64_t columns, int64_t chained, int64_t repeat,
                        double tolerance) {
  const index_t pixel = global_thread();
  if (pixel >= count * rows * columns) return;
  const Packing p = {{image0, image1, image2},
                     {depth0, depth1, depth2},
                     {label0, label1, label2},
                     {motion0, motion1, motion2, motion3, motion4, motion5, motion6, motion7},
                     feature,
                     label,
                     fetch,
                     {steps0, steps1, steps2},
                     frames,
                     height,
                     width,
                     chained != 0,
                     repeat != 0,
                     scalar(tolerance)};
  const index_t row = pixel / columns % rows, column = pixel % columns;
  scalar channels[kChannels];
  pack_pixel(p, pixel / columns / rows, row < height ? row : height - 1, column < width ? column : width - 1, channels);
  for (int c = 0; c < kChannels; ++c) out[pixel * kChannels + c] = channels[c];
}

// A pixel's cell on one axis, or -2 where the pixel left the frame.
__device__ inline index_t cell_of(scalar at, index_t size) {
  const scalar below = floor(at);
  return below >= -1 && below < scalar(size) ? index_t(below) : -2;
}

// Depth before place: the least key is the nearest pixel, and of equally near ones the first. `depth` holds the bits of
// float32 in an order that integers keep; whole numbers are compared, so any order of threads gives the same.
FFPLUG_KERNEL splat_keys(const scalar* motion, const int* depth, int64_t* keys, int64_t count, int64_t height,
                         int64_t width, int64_t far) {
  const index_t pixel = global_thread(), plane = height * width;
  if (pixel >= count * plane || depth[pixel] >= far) return;
  const index_t n = pixel / plane, here = pixel % plane;
  const scalar* own = motion + n * 2 * plane + here;
  const index_t left = cell_of(scalar(here % width) + own[0], width);
  const index_t top = cell_of(scalar(here / width) + own[plane], height);
  if (left < -1 || top < -1) return;
  const int64_t key = static_cast<int64_t>(depth[pixel]) * (int64_t(1) << 32) + here;
  for (int k = 0; k < 4; ++k) {
    const index_t row = top + k / 2, column = left + k % 2;
    if (row >= 0 && row < height && column >= 0 && column < width)
      atomicMin(keys + n * plane + row * width + column, key);
  }
}

FFPLUG_KERNEL splat_read(const scalar* motion, const int64_t* keys, scalar* out, int64_t count, int64_t height,
                         int64_t width, int64_t none) {
  const index_t pixel = global_thread(), plane = height * width;
  if (pixel >= count * plane) return;
  const index_t n = pixel / plane, here = pixel % plane;
  const scalar* own = motion + n * 2 * plane;
  const scalar x = floor(scalar(here % width) + own[here]), y = floor(scalar(here / width) + own[plane + here]);
  const index_t column = x > 0 ? (x < scalar(width) ? index_t(x) : width - 1) : 0;
  const index_t row = y > 0 ? (y < scalar(height) ? index_t(y) : height - 1) : 0;
  const int64_t key = keys[n * plane + row * width + column];
  const index_t from = key & 0xffffffff;
  scalar* to = out + n * 2 * plane + here;
  to[0] = key == none ? scalar(0) : own[from];
  to[plane] = key == none ? scalar(0) : own[plane + from];
}
