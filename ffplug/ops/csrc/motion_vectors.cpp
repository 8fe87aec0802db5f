// A codec's motion vectors on a grid of cells, in one pass over the table; and which pictures they refer to.
#include "ffplug.h"

namespace {

constexpr index_t kColumns = 9;

template <typename T>
struct Row {
  T frame, source, width, height, x, y, motion_x, motion_y, scale;
};

inline index_t floor_div(index_t value, index_t by) { return value / by - (value % by < 0); }

template <typename T>
void rasterize(const T* table, const int64_t* distances, float* flow, uint8_t* valid, int64_t* distance, int16_t* size,
               index_t count, index_t frames, index_t rows, index_t columns, index_t cell) {
  static_assert(sizeof(Row<T>) == kColumns * sizeof(T), "a row of the table");
  const index_t plane = rows * columns, bands = std::max<index_t>(1, std::min<index_t>(frames, omp_get_max_threads()));
  const auto* vectors = reinterpret_cast<const Row<T>*>(table);
#pragma omp parallel for
  for (index_t band = 0; band < bands; ++band) {
    const index_t begin = frames * band / bands, end = frames * (band + 1) / bands;
    std::fill(flow + begin * 4 * plane, flow + end * 4 * plane, 0.0f);
    std::fill(size + begin * 4 * plane, size + end * 4 * plane, int16_t(0));
    std::fill(valid + begin * 2 * plane, valid + end * 2 * plane, uint8_t(0));
    std::fill(distance + begin * 2, distance + end * 2, 0);
    for (index_t i = 0; i < count; ++i) {
      const Row<T>& v = vectors[i];
      const bool sized = v.width > 0 && v.height > 0 && v.width < 32768 && v.height < 32768 && v.width % cell == 0 &&
                         v.height % cell == 0;
      if (v.frame < begin || v.frame >= end || v.source == 0 || !sized || v.scale <= 0) continue;
      const index_t field = index_t(v.frame) * 2 + (v.source > 0);
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

// Mean absolute difference of a block to a picture at (x + u, y + v) is `sum / size`; gives up beyond `limit`.
struct Picture {
  const uint8_t* pixels;
  int64_t stride;
};

constexpr index_t kSide = 8;

scalar block_inside(const Picture& image, const Picture& other, index_t x, index_t y, index_t to_x, index_t to_y,
                    scalar u, scalar v, scalar limit) {
  scalar upper[kSide], lower[kSide], sums[kSide] = {};
  const uint8_t* from = other.pixels + to_y * other.stride + to_x;
  const uint8_t* here = image.pixels + y * image.stride + x;
  for (index_t i = 0; i < kSide; ++i) upper[i] = scalar(from[i]) * (1 - u) + scalar(from[i + 1]) * u;
  scalar sum = 0;
  for (index_t row = 0; row < kSide; row += 2) {
    for (index_t part = 0; part < 2; ++part) {
      from += other.stride;
      for (index_t i = 0; i < kSide; ++i) {
        lower[i] = scalar(from[i]) * (1 - u) + scalar(from[i + 1]) * u;
        sums[i] += std::abs(upper[i] * (1 - v) + lower[i] * v - scalar(here[i]));
        upper[i] = lower[i];
      }
      here += image.stride;
    }
    sum = ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]));
    if (sum > limit) break;
  }
  return sum;
}

scalar block_anywhere(const Picture& image, const Picture& other, index_t x, index_t y, index_t wide, index_t tall,
                      index_t to_x, index_t to_y, scalar u, scalar v, index_t height, index_t width, scalar limit) {
  const auto inside = [](index_t at, index_t size) { return std::min(std::max<index_t>(at, 0), size - 1); };
  scalar sum = 0;
  for (index_t j = 0; j < tall && sum <= limit; ++j) {
    const uint8_t* upper = other.pixels + inside(to_y + j, height) * other.stride;
    const uint8_t* lower = other.pixels + inside(to_y + j + 1, height) * other.stride;
    for (index_t i = 0; i < wide; ++i) {
      const index_t left = inside(to_x + i, width), right = inside(to_x + i + 1, width);
      const scalar above = scalar(upper[left]) * (1 - u) + scalar(upper[right]) * u;
      const scalar below = scalar(lower[left]) * (1 - u) + scalar(lower[right]) * u;
      sum += std::abs(above * (1 - v) + below * v - scalar(image.pixels[(y + j) * image.stride + x + i]));
    }
  }
  return sum;
}

// A vector's part in whole pixels, and the rest; what is far outside, or no number, stays outside.
inline index_t whole(scalar value, scalar& rest) {
  const scalar far = 1 << 20, kept = value > -far ? std::min(value, far) : -far, below = std::floor(kept);
  rest = kept - below;
  return index_t(below);
}

}  // namespace

// table M x 9 (int64 or int32), distances N x 2 -> flow and size N x 2 x 2 x h x w, valid N x 2 x h x w, distance
// N x 2. Rows that say nonsense are dropped. Every thread has frames of its own and reads the whole table in order, so
// that later rows win.
FFPLUG_EXPORT void motion_vector_rasterize(const void* table, const int64_t* distances, float* flow, uint8_t* valid,
                                           int64_t* distance, int16_t* size, index_t count, index_t frames,
                                           index_t rows, index_t columns, index_t cell, index_t wide) {
  const auto run = [&](const auto* typed) {
    rasterize(typed, distances, flow, valid, distance, size, count, frames, rows, columns, cell);
  };
  if (wide)
    run(static_cast<const int64_t*>(table));
  else
    run(static_cast<const int32_t*>(table));
}

// The frame and `count` pictures (address and stride of each), flow 2 x h x w, valid h x w -> which h x w.
FFPLUG_EXPORT void motion_vector_reference(const Picture* pictures, const scalar* flow, const uint8_t* valid,
                                           int64_t* which, index_t height, index_t width, index_t rows,
                                           index_t columns, index_t count, index_t cell, double penalty) {
  const Picture& image = pictures[0];
#pragma omp parallel for
  for (index_t row = 0; row < rows; ++row)
    for (index_t column = 0; column < columns; ++column) {
      const index_t at = row * columns + column;
      which[at] = 0;
      if (!valid[at]) continue;
      const index_t x = column * cell, y = row * cell;
      const index_t wide = std::min(cell, width - x), tall = std::min(cell, height - y), size = wide * tall;
      scalar u, v;
      const index_t to_x = x + whole(flow[at], u), to_y = y + whole(flow[at + rows * columns], v);
      const bool inside = wide == kSide && tall == kSide && to_x >= 0 && to_y >= 0 && to_x + kSide < width &&
                          to_y + kSide < height;
      scalar best = 0;
      for (index_t k = 0; k < count; ++k) {
        const Picture& other = pictures[k + 1];
        const scalar farther = scalar(k) * scalar(penalty);
        const scalar limit = k ? (best - farther) * size : scalar(256) * size;
        if (k && limit <= 0) break;
        const scalar sum =
            inside ? block_inside(image, other, x, y, to_x, to_y, u, v, limit)
                   : block_anywhere(image, other, x, y, wide, tall, to_x, to_y, u, v, height, width, limit);
        const scalar cost = sum / size + farther;
        if (k == 0 || cost < best) {
          best = cost;
          which[at] = k;
        }
      }
    }
}
