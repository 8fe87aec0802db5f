// The network's input from the history in one pass, and the motion of what covered each pixel's earlier place.
#include <vector>

#include "ffplug.h"

using std::floor;
#define STSS_FUNCTION static inline
#include "packing.h"

FFPLUG_EXPORT void warp_pack(const scalar* feature, const scalar* image0, const scalar* image1, const scalar* image2,
                             const scalar* depth0, const scalar* depth1, const scalar* depth2, const index_t* label0,
                             const index_t* label1, const index_t* label2, const scalar* motion0, const scalar* motion1,
                             const scalar* motion2, const scalar* motion3, const scalar* motion4, const scalar* motion5,
                             const scalar* motion6, const scalar* motion7, const index_t* label, const scalar* fetch,
                             scalar* out, index_t steps0, index_t steps1, index_t steps2, index_t frames, index_t count,
                             index_t height, index_t width, index_t rows, index_t columns, index_t chained,
                             index_t repeat, double tolerance) {
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
                     bool(chained),
                     bool(repeat),
                     scalar(tolerance)};
#pragma omp parallel for
  for (index_t line = 0; line < count * rows; ++line) {
    const index_t n = line / rows, row = std::min(line % rows, height - 1);
    scalar* to = out + line * columns * kChannels;
    for (index_t column = 0; column < width; ++column) pack_pixel(p, n, row, column, to + column * kChannels);
    for (index_t column = width; column < columns; ++column)
      std::memcpy(to + column * kChannels, to + (width - 1) * kChannels, kChannels * sizeof(scalar));
  }
}

// Every thread fills a band of rows and reads all pixels for it, so that the first of equally near ones stays.
FFPLUG_EXPORT void splat_motion(const scalar* motion, const float* depth, scalar* out, index_t count, index_t height,
                                index_t width, double far) {
  const index_t plane = height * width;
  const index_t bands = std::max<index_t>(1, std::min<index_t>(height, omp_get_max_threads()));
  std::vector<float> nearest(plane);
  std::vector<int32_t> source(plane);
  for (index_t n = 0; n < count; ++n) {
    const scalar *across = motion + n * 2 * plane, *down = across + plane;
    const float* own = depth + n * plane;
    scalar* to = out + n * 2 * plane;
#pragma omp parallel for
    for (index_t band = 0; band < bands; ++band) {
      const index_t begin = height * band / bands, end = height * (band + 1) / bands;
      std::fill(nearest.begin() + begin * width, nearest.begin() + end * width, float(far));
      std::fill(source.begin() + begin * width, source.begin() + end * width, -1);
      for (index_t row = 0; row < height; ++row)
        for (index_t column = 0; column < width; ++column) {
          const index_t here = row * width + column;
          const scalar x = std::floor(scalar(column) + across[here]), y = std::floor(scalar(row) + down[here]);
          if (!(x >= -1 && x < scalar(width) && y >= scalar(begin - 1) && y < scalar(end))) continue;
          const index_t left = index_t(x), top = index_t(y);
          for (index_t r = std::max(top, begin); r <= top + 1 && r < end; ++r)
            for (index_t c = std::max<index_t>(left, 0); c <= left + 1 && c < width; ++c)
              if (own[here] < nearest[r * width + c]) {
                nearest[r * width + c] = own[here];
                source[r * width + c] = int32_t(here);
              }
        }
    }
#pragma omp parallel for
    for (index_t row = 0; row < height; ++row)
      for (index_t column = 0; column < width; ++column) {
        const index_t here = row * width + column;
        const scalar x = std::floor(scalar(column) + across[here]), y = std::floor(scalar(row) + down[here]);
        const index_t c = x > 0 ? (x < scalar(width) ? index_t(x) : width - 1) : 0;
        const index_t r = y > 0 ? (y < scalar(height) ? index_t(y) : height - 1) : 0;
        const int32_t from = source[r * width + c];
        to[here] = from < 0 ? scalar(0) : across[from];
        to[plane + here] = from < 0 ? scalar(0) : down[from];
      }
  }
}
