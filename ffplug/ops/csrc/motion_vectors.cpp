// A codec's motion vectors on a grid of cells, the pictures that they refer to, and the flow that follows.
#include <vector>

#include "ffplug.h"

namespace {

constexpr index_t kColumns = 9;

template <typename T>
struct Row {
  T frame, source, width, height, x, y, motion_x, motion_y, scale;
};

// FFmpeg's AVMotionVector.
struct Record {
  int32_t source;
  uint8_t width, height;
  int16_t source_x, source_y, x, y;
  uint64_t flags;
  int32_t motion_x, motion_y;
  uint16_t scale;
};
static_assert(sizeof(Record) == 40, "a record");

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

struct Picture {
  const uint8_t* pixels;
  int64_t stride;
};

constexpr index_t kSide = 8;

typedef uint8_t Octets __attribute__((vector_size(kSide)));
typedef uint16_t Words __attribute__((vector_size(kSide * sizeof(uint16_t))));
typedef int32_t Whole __attribute__((vector_size(kSide * sizeof(int32_t))));
typedef scalar Line __attribute__((vector_size(kSide * sizeof(scalar))));

inline Line line(const uint8_t* from) {
  Octets octets;
  std::memcpy(&octets, from, kSide);
  // In three steps, each of which is an instruction; compilers take one step apart.
  return __builtin_convertvector(__builtin_convertvector(__builtin_convertvector(octets, Words), Whole), Line);
}

// Sum of the absolute differences of a block to a picture, shifted to (to_x + u, to_y + v); gives up beyond `limit`.
scalar block_inside(const Picture& image, const Picture& other, index_t x, index_t y, index_t to_x, index_t to_y,
                    scalar u, scalar v, scalar limit) {
  const uint8_t* from = other.pixels + to_y * other.stride + to_x;
  const uint8_t* here = image.pixels + y * image.stride + x;
  const scalar left = 1 - u, above = 1 - v;
  Line upper = line(from) * left + line(from + 1) * u, sums = {};
  scalar sum = 0;
  for (index_t row = 0; row < kSide; row += 2) {
    for (index_t part = 0; part < 2; ++part) {
      from += other.stride;
      const Line lower = line(from) * left + line(from + 1) * u;
      const Line difference = upper * above + lower * v - line(here);
      sums += difference < 0 ? -difference : difference;
      upper = lower;
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

// Which of `count` pictures, shifted by the vector, looks most like the cell at (x, y).
index_t likest(const Picture& image, const Picture* others, index_t count, scalar moved_x, scalar moved_y, index_t x,
               index_t y, index_t cell, index_t height, index_t width, scalar penalty) {
  const index_t wide = std::min(cell, width - x), tall = std::min(cell, height - y), size = wide * tall;
  scalar u, v, best = 0;
  const index_t to_x = x + whole(moved_x, u), to_y = y + whole(moved_y, v);
  const bool inside =
      wide == kSide && tall == kSide && to_x >= 0 && to_y >= 0 && to_x + kSide < width && to_y + kSide < height;
  index_t which = 0;
  for (index_t k = 0; k < count; ++k) {
    const scalar farther = scalar(k) * penalty;
    const scalar limit = k ? (best - farther) * size : scalar(256) * size;
    if (k && limit <= 0) break;
    const scalar sum = inside ? block_inside(image, others[k], x, y, to_x, to_y, u, v, limit)
                              : block_anywhere(image, others[k], x, y, wide, tall, to_x, to_y, u, v, height, width, limit);
    const scalar cost = sum / size + farther;
    if (k == 0 || cost < best) {
      best = cost;
      which = k;
    }
  }
  return which;
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

// records M x 10 int32, pictures (the frame, then the candidates), steps and spans of the candidates, `past` of them in
// the past -> flow 2 x 2 x h x w; valid, distance, span and area 2 x h x w.
FFPLUG_EXPORT void motion_vector_field(const Record* records, const Picture* pictures, const int64_t* steps,
                                       const float* spans, float* flow, uint8_t* valid, int64_t* distance, float* span,
                                       float* area, index_t count, index_t height, index_t width, index_t rows,
                                       index_t columns, index_t cell, index_t left, index_t top, index_t past,
                                       index_t candidates, double penalty) {
  const index_t plane = rows * columns;
  std::fill(flow, flow + 4 * plane, 0.0f);
  std::fill(valid, valid + 2 * plane, uint8_t(0));
  std::fill(distance, distance + 2 * plane, int64_t(0));
  std::fill(span, span + 2 * plane, 0.0f);
  std::fill(area, area + 2 * plane, 0.0f);
  for (index_t i = 0; i < count; ++i) {
    const Record& v = records[i];
    const index_t wide = v.width, tall = v.height;
    if (v.source == 0 || wide == 0 || tall == 0 || wide % cell || tall % cell || v.scale == 0 || v.scale > 32767)
      continue;
    const index_t list = v.source > 0, first = list ? past : 0;
    const float moved_x = float(v.motion_x) / float(v.scale), moved_y = float(v.motion_y) / float(v.scale);
    const index_t x0 = floor_div(v.x - left - wide / 2, cell), y0 = floor_div(v.y - top - tall / 2, cell);
    const index_t x1 = std::min(x0 + wide / cell, columns), y1 = std::min(y0 + tall / cell, rows);
    for (index_t y = std::max<index_t>(y0, 0); y < y1; ++y)
      for (index_t x = std::max<index_t>(x0, 0); x < x1; ++x) {
        const index_t at = list * plane + y * columns + x;
        valid[at] = 1;
        flow[at + list * plane] = moved_x;
        flow[at + list * plane + plane] = moved_y;
        area[at] = float(wide * tall);
        distance[at] = steps[first];
        span[at] = spans[first];
      }
  }
  for (index_t list = 0; list < 2; ++list) {
    const index_t first = list ? past : 0, number = list ? candidates - past : past;
    if (number < 2) continue;
#pragma omp parallel for
    for (index_t row = 0; row < rows; ++row)
      for (index_t column = 0; column < columns; ++column) {
        const index_t cell_at = row * columns + column, at = list * plane + cell_at;
        if (!valid[at]) continue;
        const float* vector = flow + 2 * list * plane + cell_at;
        const index_t which = first + likest(pictures[0], pictures + 1 + first, number, vector[0], vector[plane],
                                             column * cell, row * cell, cell, height, width, scalar(penalty));
        distance[at] = steps[which];
        span[at] = spans[which];
      }
  }
}

// flow 2 x 2 x h x w, valid, span and area 2 x h x w -> flow 2 x h x w, valid, gap and size h x w.
FFPLUG_EXPORT void motion_vector_flow(const scalar* flow, const uint8_t* valid, const scalar* span, const scalar* area,
                                      scalar* out, uint8_t* known, scalar* gap, scalar* size, index_t rows,
                                      index_t columns, index_t cell, index_t thrown, double least) {
  const index_t plane = rows * columns;
  scalar known_area = 1, its_log = 0;  // blocks come in few sizes
  for (index_t at = 0; at < plane; ++at) {
    scalar x = 0, y = 0, total = 0, nearest = 0, logs = 0;
    for (index_t list = 0; list < 2; ++list) {
      const index_t i = list * plane + at;
      if (!valid[i]) continue;
      const scalar weight = 1 / span[i], scale = (list ? -weight : weight) / span[i];
      x += flow[2 * list * plane + at] * scale;
      y += flow[(2 * list + 1) * plane + at] * scale;
      total += weight;
      nearest = std::max(nearest, weight);
      if (area[i] != known_area) {
        known_area = area[i];
        its_log = std::log2(known_area);
      }
      logs += weight * its_log;
    }
    const scalar share = total > 0 ? total : 1;
    out[at] = x / share;
    out[at + plane] = y / share;
    known[at] = total > 0;
    gap[at] = nearest;
    size[at] = logs / share;
  }
  if (!thrown) return;
  struct Sum {
    scalar x, y, gap, size, weight;
  };
  std::vector<Sum> sums(plane, Sum{0, 0, 0, 0, 0});
  for (index_t row = 0; row < rows; ++row)
    for (index_t column = 0; column < columns; ++column) {
      const index_t at = row * columns + column;
      if (!known[at]) continue;
      scalar u, v;
      const index_t x = column + whole(out[at] / cell, u), y = row + whole(out[at + plane] / cell, v);
      for (index_t corner = 0; corner < 4; ++corner) {
        const index_t to_x = x + corner % 2, to_y = y + corner / 2;
        if (to_x < 0 || to_x >= columns || to_y < 0 || to_y >= rows) continue;
        const scalar weight = (corner % 2 ? u : 1 - u) * (corner / 2 ? v : 1 - v);
        Sum& sum = sums[to_y * columns + to_x];
        sum.x -= weight * out[at];
        sum.y -= weight * out[at + plane];
        sum.gap += weight * gap[at];
        sum.size += weight * size[at];
        sum.weight += weight;
      }
    }
  for (index_t at = 0; at < plane; ++at) {
    const Sum& sum = sums[at];
    known[at] = sum.weight >= scalar(least);
    const scalar share = known[at] ? 1 / sum.weight : 0;
    out[at] = sum.x * share;
    out[at + plane] = sum.y * share;
    gap[at] = sum.gap * share;
    size[at] = sum.size * share;
  }
}
