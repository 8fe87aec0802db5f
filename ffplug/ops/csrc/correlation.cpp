// Look-up of windows in a correlation pyramid: from the stored volume, and on demand from the features.
//
// All offsets of a window share one fractional part, so a level needs the (2r+2)^2 integer neighbours of the target and
// one separable blend. On demand, each neighbour is a product of two feature rows; two cells beside each other share most
// of their neighbours, so they are computed together.
#include <vector>

#include "ffplug.h"

namespace {

constexpr index_t kMaxLevels = 8;
constexpr index_t kNear = 11;  // neighbours in a row of the union of two adjacent windows with r = 4

struct Pyramid {
  index_t levels, radius, cells;  // cells: of all levels together
  index_t height[kMaxLevels], width[kMaxLevels], start[kMaxLevels];

  Pyramid(const int64_t* sizes, index_t levels, index_t radius) : levels(levels), radius(radius), cells(0) {
    for (index_t l = 0; l < levels; ++l) {
      height[l] = sizes[2 * l];
      width[l] = sizes[2 * l + 1];
      start[l] = cells;
      cells += height[l] * width[l];
    }
  }
  index_t side() const { return 2 * radius + 2; }          // of the integer neighbours
  index_t offsets() const { return side() - 1; }           // of the window
  index_t outputs() const { return levels * offsets() * offsets(); }
};

struct Target {
  index_t x, y;  // first integer neighbour
  scalar fx, fy;
};

// A target far outside reads zeros wherever it is, and must stay within what an integer holds.
inline index_t clamp_floor(scalar value, index_t low, index_t high) {
  if (!(value > scalar(low))) return low;
  return value < scalar(high) ? index_t(value) : high;
}

inline Target target_of(const Pyramid& p, const scalar* flow, index_t width, index_t plane, index_t n, index_t cell,
                        index_t level) {
  const scalar scale = scalar(1) / scalar(index_t(1) << level);
  const scalar x = (flow[n * 2 * plane + cell] + scalar(cell % width)) * scale;
  const scalar y = (flow[(n * 2 + 1) * plane + cell] + scalar(cell / width)) * scale;
  const scalar floor_x = std::floor(x), floor_y = std::floor(y);
  Target t;
  t.x = clamp_floor(floor_x, -p.side() - 1, p.width[level] + p.radius) - p.radius;
  t.y = clamp_floor(floor_y, -p.side() - 1, p.height[level] + p.radius) - p.radius;
  t.fx = x - floor_x;
  t.fy = y - floor_y;
  return t;
}

// The integer neighbours of one window in a map of height x width, rows `pitch` apart; zero outside.
inline void gather(const scalar* map, index_t height, index_t width, const Target& t, index_t side, scalar* values,
                   index_t pitch) {
  const index_t first = std::max<index_t>(0, -t.x), last = std::min(side, width - t.x);
  for (index_t j = 0; j < side; ++j) {
    scalar* row = values + j * pitch;
    const index_t y = t.y + j;
    if (y < 0 || y >= height || first >= last) {
      std::fill(row, row + side, scalar(0));
      continue;
    }
    std::fill(row, row + first, scalar(0));
    std::memcpy(row + first, map + y * width + t.x + first, (last - first) * sizeof(scalar));
    std::fill(row + last, row + side, scalar(0));
  }
}

// values side x side (rows y, columns x) -> out offsets x offsets, x slowest.
inline void blend(const scalar* values, index_t pitch, const Target& t, index_t offsets, scalar* out) {
  scalar above[32], below[32];
  const auto mix = [&](index_t j, scalar* row) {
    const scalar* v = values + j * pitch;
    for (index_t i = 0; i < offsets; ++i) row[i] = v[i] + t.fx * (v[i + 1] - v[i]);
  };
  mix(0, above);
  for (index_t j = 0; j < offsets; ++j) {
    mix(j + 1, below);
    for (index_t i = 0; i < offsets; ++i) out[i * offsets + j] = above[i] + t.fy * (below[i] - above[i]);
    std::memcpy(above, below, offsets * sizeof(scalar));
  }
}

// The transpose of blend: gradients of the window -> of the integer neighbours, side x side.
inline void spread(const scalar* grad, const Target& t, index_t offsets, scalar* values) {
  const index_t side = offsets + 1;
  std::fill(values, values + side * side, scalar(0));
  for (index_t i = 0; i < offsets; ++i)
    for (index_t j = 0; j < offsets; ++j) {
      const scalar g = grad[i * offsets + j], right = g * t.fx, left = g - right;
      scalar* at = values + j * side + i;
      at[0] += left * (1 - t.fy);
      at[1] += right * (1 - t.fy);
      at[side] += left * t.fy;
      at[side + 1] += right * t.fy;
    }
}

// Adds to slope[2] the gradient of the target's x and y in cells of the level.
inline void slopes(const scalar* values, index_t pitch, const scalar* grad, const Target& t, index_t offsets,
                   scalar* slope) {
  for (index_t i = 0; i < offsets; ++i)
    for (index_t j = 0; j < offsets; ++j) {
      const scalar* v = values + j * pitch + i;
      const scalar top = v[1] - v[0], bottom = v[pitch + 1] - v[pitch];
      const scalar left = v[pitch] - v[0], right = v[pitch + 1] - v[1];
      slope[0] += grad[i * offsets + j] * (top + t.fy * (bottom - top));
      slope[1] += grad[i * offsets + j] * (left + t.fx * (right - left));
    }
}

inline vec shuffle(vec a, vec b, bool high, index_t step) {
#if FFPLUG_SCALAR_BYTES == 8
  typedef int64_t mask __attribute__((vector_size(FFPLUG_VECTOR_BYTES)));
#else
  typedef int32_t mask __attribute__((vector_size(FFPLUG_VECTOR_BYTES)));
#endif
  mask m;
  // Blocks of 2 * step lanes: the low (or high) halves of a's blocks, with b's put in their place alternately.
  for (index_t i = 0; i < kLanes; ++i) {
    const index_t block = i / (2 * step) * 2 * step, within = i % step;
    m[i] = (i / step % 2 ? kLanes : 0) + block + (high ? step : 0) + within;
  }
#if defined(__clang__)
  vec r;
  for (index_t i = 0; i < kLanes; ++i) r[i] = m[i] < kLanes ? a[m[i]] : b[m[i] - kLanes];
  return r;
#else
  return __builtin_shuffle(a, b, m);
#endif
}

// Sums of the lanes of kLanes vectors, as the lanes of one.
inline vec reduce_all(vec* v) {
  index_t count = kLanes;
#pragma GCC unroll 4
  for (index_t step = 1; step < kLanes; step *= 2) {
#pragma GCC unroll 8
    for (index_t i = 0; i < count / 2; ++i)
      v[i] = shuffle(v[2 * i], v[2 * i + 1], false, step) + shuffle(v[2 * i], v[2 * i + 1], true, step);
    count /= 2;
  }
  return v[0];
}

// dots[q][j] = <query[q], near + j * channels> for two queries and kCount neighbours.
template <int kCount>
inline void dots(const scalar* query0, const scalar* query1, const scalar* near, index_t channels, scalar* dots0,
                 scalar* dots1) {
  constexpr int kGroups = (2 * kCount + kLanes - 1) / kLanes;
  vec sum[kGroups * kLanes] = {};
  const index_t whole = channels - channels % kLanes;
  for (index_t c = 0; c < whole; c += kLanes) {
    const vec a = load(query0 + c), b = load(query1 + c);
#pragma GCC unroll 11
    for (int j = 0; j < kCount; ++j) {
      const vec value = load(near + j * channels + c);
      sum[2 * j] += a * value;
      sum[2 * j + 1] += b * value;
    }
  }
  if (whole < channels) {
    const index_t rest = channels - whole;
    const vec a = load_part(query0 + whole, rest), b = load_part(query1 + whole, rest);
    for (int j = 0; j < kCount; ++j) {
      const vec value = load_part(near + j * channels + whole, rest);
      sum[2 * j] += a * value;
      sum[2 * j + 1] += b * value;
    }
  }
  scalar flat[kGroups * kLanes];
  for (int g = 0; g < kGroups; ++g) store(flat + g * kLanes, reduce_all(sum + g * kLanes));
  for (int j = 0; j < kCount; ++j) {
    dots0[j] = flat[2 * j];
    dots1[j] = flat[2 * j + 1];
  }
}

// The windows of one or two cells whose targets lie in one row of neighbours, `shift` apart: side x pitch values each.
struct Windows {
  std::vector<scalar> edge;
  index_t channels;

  explicit Windows(index_t channels) : edge(kNear * channels), channels(channels) {}

  void row(const scalar* query0, const scalar* query1, const scalar* map, index_t height, index_t width, index_t x,
           index_t y, index_t count, scalar* values0, scalar* values1) {
    while (count > 0) {
      const index_t part = std::min(count, kNear);
      const index_t first = std::max<index_t>(0, -x), last = std::min(part, width - x);
      if (y < 0 || y >= height || first >= last) {
        std::fill(values0, values0 + part, scalar(0));
        std::fill(values1, values1 + part, scalar(0));
      } else {
        const scalar* near = map + (y * width + x) * channels;
        if (first > 0 || last < part || part < kNear - 3) {
          std::fill(edge.begin(), edge.end(), scalar(0));
          std::memcpy(edge.data() + first * channels, near + first * channels,
                      (last - first) * channels * sizeof(scalar));
          near = edge.data();
        }
        scalar rest0[kNear], rest1[kNear];
        switch (part) {
          case 11:
            dots<11>(query0, query1, near, channels, rest0, rest1);
            break;
          case 10:
            dots<10>(query0, query1, near, channels, rest0, rest1);
            break;
          case 9:
            dots<9>(query0, query1, near, channels, rest0, rest1);
            break;
          case 8:
            dots<8>(query0, query1, near, channels, rest0, rest1);
            break;
          default:
            dots<11>(query0, query1, near, channels, rest0, rest1);
        }
        std::memcpy(values0, rest0, part * sizeof(scalar));
        std::memcpy(values1, rest1, part * sizeof(scalar));
      }
      count -= part;
      x += part;
      values0 += part;
      values1 += part;
    }
  }
};

// Calls body(n, cell, level, target, values, pitch) with the integer neighbours of every window of a row of cells.
template <typename Body>
void each_window(const scalar* query, const scalar* table, const scalar* flow, const Pyramid& p, index_t n, index_t y,
                 index_t height, index_t width, index_t channels, Windows& windows, Body body) {
  const index_t plane = height * width, side = p.side(), pitch = side + 2;
  std::vector<scalar> values0(side * pitch), values1(side * pitch);
  for (index_t level = 0; level < p.levels; ++level) {
    const scalar* map = table + (n * p.cells + p.start[level]) * channels;
    for (index_t x = 0; x < width;) {
      const index_t cell = y * width + x;
      const Target a = target_of(p, flow, width, plane, n, cell, level);
      const bool more = x + 1 < width;
      const Target b = more ? target_of(p, flow, width, plane, n, cell + 1, level) : a;
      const index_t shift = b.x - a.x;
      const bool pair = more && b.y == a.y && shift >= 0 && shift <= 1;
      const scalar* query0 = query + (n * plane + cell) * channels;
      const scalar* query1 = pair ? query0 + channels : query0;
      for (index_t j = 0; j < side; ++j)
        windows.row(query0, query1, map, p.height[level], p.width[level], a.x, a.y + j, side + (pair ? shift : 0),
                    values0.data() + j * pitch, values1.data() + j * pitch);
      body(cell, level, a, values0.data(), pitch);
      if (pair) body(cell + 1, level, b, values1.data() + shift, pitch);
      x += pair ? 2 : 1;
    }
  }
}

}  // namespace

// volume N x P x cells, flow N x 2 x h x w, sizes levels x 2 -> out N x P x outputs
FFPLUG_EXPORT void corr_lookup(const scalar* volume, const scalar* flow, const int64_t* sizes, scalar* out,
                               index_t count, index_t height, index_t width, index_t levels, index_t radius) {
  const Pyramid p(sizes, levels, radius);
  const index_t plane = height * width, side = p.side(), window = p.offsets() * p.offsets();
#pragma omp parallel
  {
    std::vector<scalar> values(side * side);
#pragma omp for
    for (index_t job = 0; job < count * plane; ++job) {
      const index_t n = job / plane, cell = job % plane;
      constexpr index_t kAhead = 6;
      if (cell + kAhead < plane) {
        for (index_t level = 0; level < std::min<index_t>(2, levels); ++level) {
          const Target t = target_of(p, flow, width, plane, n, cell + kAhead, level);
          const scalar* map = volume + (job + kAhead) * p.cells + p.start[level];
          for (index_t j = 0; j < side; ++j)
            if (t.y + j >= 0 && t.y + j < p.height[level])
              __builtin_prefetch(map + (t.y + j) * p.width[level] + std::max<index_t>(t.x, 0));
        }
      }
      for (index_t level = 0; level < levels; ++level) {
        const Target t = target_of(p, flow, width, plane, n, cell, level);
        gather(volume + job * p.cells + p.start[level], p.height[level], p.width[level], t, side, values.data(), side);
        blend(values.data(), side, t, p.offsets(), out + job * p.outputs() + level * window);
      }
    }
  }
}

// grad N x P x outputs -> grad_volume N x P x cells (or null), grad_flow N x 2 x h x w (or null)
FFPLUG_EXPORT void corr_lookup_backward(const scalar* grad, const scalar* volume, const scalar* flow,
                                        const int64_t* sizes, scalar* grad_volume, scalar* grad_flow, index_t count,
                                        index_t height, index_t width, index_t levels, index_t radius) {
  const Pyramid p(sizes, levels, radius);
  const index_t plane = height * width, side = p.side(), window = p.offsets() * p.offsets();
#pragma omp parallel
  {
    std::vector<scalar> values(side * side);
#pragma omp for
    for (index_t job = 0; job < count * plane; ++job) {
      const index_t n = job / plane, cell = job % plane;
      scalar slope[2] = {};
      if (grad_volume) std::fill_n(grad_volume + job * p.cells, p.cells, scalar(0));
      for (index_t level = 0; level < levels; ++level) {
        const Target t = target_of(p, flow, width, plane, n, cell, level);
        const scalar* own = grad + job * p.outputs() + level * window;
        if (grad_volume) {
          spread(own, t, p.offsets(), values.data());
          scalar* map = grad_volume + job * p.cells + p.start[level];
          for (index_t j = 0; j < side; ++j)
            for (index_t i = 0; i < side; ++i)
              if (t.y + j >= 0 && t.y + j < p.height[level] && t.x + i >= 0 && t.x + i < p.width[level])
                map[(t.y + j) * p.width[level] + t.x + i] += values[j * side + i];
        }
        if (grad_flow) {
          gather(volume + job * p.cells + p.start[level], p.height[level], p.width[level], t, side, values.data(),
                 side);
          scalar level_slope[2] = {};
          slopes(values.data(), side, own, t, p.offsets(), level_slope);
          for (index_t c = 0; c < 2; ++c) slope[c] += level_slope[c] / scalar(index_t(1) << level);
        }
      }
      if (grad_flow)
        for (index_t c = 0; c < 2; ++c) grad_flow[(n * 2 + c) * plane + cell] = slope[c];
    }
  }
}

// query N x P x C, table N x cells x C -> out N x P x outputs
FFPLUG_EXPORT void corr_lookup_on_demand(const scalar* query, const scalar* table, const scalar* flow,
                                         const int64_t* sizes, scalar* out, index_t count, index_t height,
                                         index_t width, index_t channels, index_t levels, index_t radius) {
  const Pyramid p(sizes, levels, radius);
  const index_t plane = height * width, window = p.offsets() * p.offsets();
#pragma omp parallel
  {
    Windows windows(channels);
#pragma omp for schedule(dynamic)
    for (index_t row = 0; row < count * height; ++row) {
      const index_t n = row / height;
      each_window(query, table, flow, p, n, row % height, height, width, channels, windows,
                  [&](index_t cell, index_t level, const Target& t, const scalar* values, index_t pitch) {
                    blend(values, pitch, t, p.offsets(), out + (n * plane + cell) * p.outputs() + level * window);
                  });
    }
  }
}

// Gradients of query, table and flow (each may be null); `shares` N x P x levels x side^2 is scratch.
FFPLUG_EXPORT void corr_lookup_on_demand_backward(const scalar* grad, const scalar* query, const scalar* table,
                                                  const scalar* flow, const int64_t* sizes, scalar* grad_query,
                                                  scalar* grad_table, scalar* grad_flow, scalar* shares,
                                                  index_t count, index_t height, index_t width, index_t channels,
                                                  index_t levels, index_t radius) {
  const Pyramid p(sizes, levels, radius);
  const index_t plane = height * width, side = p.side(), window = p.offsets() * p.offsets();
#pragma omp parallel
  {
    if (grad_flow) {
      Windows windows(channels);
      std::vector<scalar> slope(2 * width);
#pragma omp for schedule(dynamic)
      for (index_t row = 0; row < count * height; ++row) {
        const index_t n = row / height, y = row % height;
        std::fill(slope.begin(), slope.end(), scalar(0));
        each_window(query, table, flow, p, n, y, height, width, channels, windows,
                    [&](index_t cell, index_t level, const Target& t, const scalar* values, index_t pitch) {
                      scalar own[2] = {};
                      slopes(values, pitch, grad + (n * plane + cell) * p.outputs() + level * window, t, p.offsets(),
                             own);
                      for (index_t c = 0; c < 2; ++c)
                        slope[2 * (cell % width) + c] += own[c] / scalar(index_t(1) << level);
                    });
        for (index_t x = 0; x < width; ++x)
          for (index_t c = 0; c < 2; ++c) grad_flow[(n * 2 + c) * plane + y * width + x] = slope[2 * x + c];
      }
    }
#pragma omp for
    for (index_t job = 0; job < count * plane; ++job)
      for (index_t level = 0; level < levels; ++level)
        spread(grad + job * p.outputs() + level * window,
               target_of(p, flow, width, plane, job / plane, job % plane, level), p.offsets(),
               shares + (job * levels + level) * side * side);
    // A thread takes a slice of the channels of a sample, so that no two write to one place.
    const index_t slice = 4 * kLanes, slices = (channels + slice - 1) / slice;
#pragma omp for schedule(dynamic)
    for (index_t job = 0; job < count * slices; ++job) {
      const index_t n = job / slices, first = job % slices * slice, size = std::min(slice, channels - first);
      if (grad_table)
        for (index_t k = 0; k < p.cells; ++k)
          std::fill_n(grad_table + (n * p.cells + k) * channels + first, size, scalar(0));
      for (index_t cell = 0; cell < plane; ++cell) {
        const index_t at = (n * plane + cell) * channels + first;
        scalar own[4 * kLanes] = {}, sum[4 * kLanes] = {};
        std::memcpy(own, query + at, size * sizeof(scalar));
        for (index_t level = 0; level < levels; ++level) {
          const Target t = target_of(p, flow, width, plane, n, cell, level);
          const scalar* share = shares + ((n * plane + cell) * levels + level) * side * side;
          const index_t low_x = std::max<index_t>(0, -t.x), high_x = std::min(side, p.width[level] - t.x);
          const index_t low_y = std::max<index_t>(0, -t.y), high_y = std::min(side, p.height[level] - t.y);
          for (index_t j = low_y; j < high_y; ++j)
            for (index_t i = low_x; i < high_x; ++i) {
              const scalar weight = share[j * side + i];
              const index_t near = n * p.cells + p.start[level] + (t.y + j) * p.width[level] + t.x + i;
              const scalar* value = table + near * channels + first;
              scalar* debt = grad_table ? grad_table + near * channels + first : nullptr;
              if (size == slice) {
#pragma GCC unroll 4
                for (index_t c = 0; c < slice; c += kLanes) {
                  store(sum + c, load(sum + c) + load(value + c) * weight);
                  if (debt) store(debt + c, load(debt + c) + load(own + c) * weight);
                }
              } else {
                for (index_t c = 0; c < size; ++c) {
                  sum[c] += value[c] * weight;
                  if (debt) debt[c] += own[c] * weight;
                }
              }
            }
        }
        if (grad_query) std::memcpy(grad_query + at, sum, size * sizeof(scalar));
      }
    }
  }
}
