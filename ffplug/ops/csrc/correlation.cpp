// Look-up of windows in a correlation pyramid: from the stored volume, and on demand from the features.
//
// All offsets of a window share one fractional part, so a level needs the (2r+2)^2 integer neighbours of the target and
// one separable blend. On demand, each neighbour is a product of two feature rows; two cells beside each other share most
// of their neighbours, so they are computed together.
#include <type_traits>
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
  index_t pitch() const { return side() + 2 * kLanes; }    // of a row of neighbours, with room to read beyond
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

// values side x side (rows y, columns x; readable up to kLanes beyond a row) -> out offsets x offsets, x slowest.
template <int kOffsets>
inline void blend_fixed(const scalar* values, index_t pitch, const Target& t, scalar* out) {
  constexpr int kGroups = (kOffsets + kLanes - 1) / kLanes;
  scalar rows[kOffsets][kGroups * kLanes];
  for (int g = 0; g < kGroups; ++g) {
    const auto mix = [&](int j) {
      const scalar* v = values + j * pitch + g * kLanes;
      const vec left = load(v);
      return left + (load(v + 1) - left) * t.fx;
    };
    vec above = mix(0);
    for (int j = 0; j < kOffsets; ++j) {
      const vec below = mix(j + 1);
      store(rows[j] + g * kLanes, above + (below - above) * t.fy);
      above = below;
    }
  }
  for (int i = 0; i < kOffsets; ++i)
#pragma GCC unroll 9
    for (int j = 0; j < kOffsets; ++j) out[i * kOffsets + j] = rows[j][i];
}

inline void blend(const scalar* values, index_t pitch, const Target& t, index_t offsets, scalar* out) {
  if (offsets == 9) return blend_fixed<9>(values, pitch, t, out);
  if (offsets == 7) return blend_fixed<7>(values, pitch, t, out);
  for (index_t i = 0; i < offsets; ++i)
    for (index_t j = 0; j < offsets; ++j) {
      const scalar* v = values + j * pitch + i;
      const scalar above = v[0] + t.fx * (v[1] - v[0]), below = v[pitch] + t.fx * (v[pitch + 1] - v[pitch]);
      out[i * offsets + j] = above + t.fy * (below - above);
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

#if FFPLUG_SCALAR_BYTES == 8
typedef int64_t lanes_t __attribute__((vector_size(FFPLUG_VECTOR_BYTES)));
#else
typedef int32_t lanes_t __attribute__((vector_size(FFPLUG_VECTOR_BYTES)));
#endif

// Of blocks of 2 * kStep lanes, the low (or high) halves: those of a, with those of b in between.
template <int kStep, bool kHigh>
inline vec halves(vec a, vec b) {
  lanes_t from = {};
  for (int i = 0; i < int(kLanes); ++i)
    from[i] = (i / kStep % 2 ? int(kLanes) : 0) + i / (2 * kStep) * 2 * kStep + (kHigh ? kStep : 0) + i % kStep;
#if defined(__clang__)
  vec result;
  for (int i = 0; i < int(kLanes); ++i) result[i] = from[i] < kLanes ? a[from[i]] : b[from[i] - kLanes];
  return result;
#else
  return __builtin_shuffle(a, b, from);
#endif
}

// Sums of the lanes of kLanes vectors, as the lanes of one: each step adds halves and leaves half as many vectors.
template <int kStep = 1>
inline vec reduce_all(const vec* v) {
  if constexpr (kStep == kLanes) {
    return v[0];
  } else {
    constexpr int kCount = kLanes / kStep / 2;
    vec next[kCount];
#pragma GCC unroll 8
    for (int i = 0; i < kCount; ++i)
      next[i] = halves<kStep, false>(v[2 * i], v[2 * i + 1]) + halves<kStep, true>(v[2 * i], v[2 * i + 1]);
    return reduce_all<kStep * 2>(next);
  }
}

// values[j] = <query, near + j * channels> for kCount neighbours, of one query or of two; writes up to the next
// multiple of kLanes.
template <int kCount, bool kTwo>
inline void dots(const scalar* query0, const scalar* query1, const scalar* near, index_t channels, scalar* values0,
                 scalar* values1) {
  constexpr int kGroups = (kCount + kLanes - 1) / kLanes;
  vec sum0[kGroups * kLanes] = {}, sum1[kGroups * kLanes] = {};
  const index_t whole = channels - channels % kLanes;
  for (index_t c = 0; c < whole; c += kLanes) {
    const vec a = load(query0 + c), b = kTwo ? load(query1 + c) : a;
#pragma GCC unroll 11
    for (int j = 0; j < kCount; ++j) {
      const vec value = load(near + j * channels + c);
      sum0[j] += a * value;
      if (kTwo) sum1[j] += b * value;
    }
  }
  if (whole < channels) {
    const index_t rest = channels - whole;
    const vec a = load_part(query0 + whole, rest), b = kTwo ? load_part(query1 + whole, rest) : a;
    for (int j = 0; j < kCount; ++j) {
      const vec value = load_part(near + j * channels + whole, rest);
      sum0[j] += a * value;
      if (kTwo) sum1[j] += b * value;
    }
  }
#pragma GCC unroll 4
  for (int g = 0; g < kGroups; ++g) {
    store(values0 + g * kLanes, reduce_all(sum0 + g * kLanes));
    if (kTwo) store(values1 + g * kLanes, reduce_all(sum1 + g * kLanes));
  }
}

// Products of one query, or two, with a row of neighbours; what lies outside the map is zero.
struct Neighbours {
  index_t channels;

  // Up to kNear neighbours from `near` on, all in memory.
  template <bool kTwo>
  void inner(const scalar* query0, const scalar* query1, const scalar* near, index_t count, scalar* values0,
             scalar* values1) {
    switch (count) {
      case 11:
        return dots<11, kTwo>(query0, query1, near, channels, values0, values1);
      case 10:
        return dots<10, kTwo>(query0, query1, near, channels, values0, values1);
      case 9:
        return dots<9, kTwo>(query0, query1, near, channels, values0, values1);
      case 8:
        return dots<8, kTwo>(query0, query1, near, channels, values0, values1);
      default:
        for (index_t j = 0; j < count; ++j) {
          scalar one0[kLanes], one1[kLanes];
          dots<1, kTwo>(query0, query1, near + j * channels, channels, one0, one1);
          values0[j] = one0[0];
          if (kTwo) values1[j] = one1[0];
        }
    }
  }

  template <bool kTwo>
  void row(const scalar* query0, const scalar* query1, const scalar* map, index_t height, index_t width, index_t x,
           index_t y, index_t count, scalar* values0, scalar* values1) {
    for (; count > 0; count -= kNear, x += kNear, values0 += kNear, values1 += kNear) {
      const index_t part = std::min(count, kNear);
      const index_t first = std::max<index_t>(0, -x), last = std::min(part, width - x);
      const bool none = y < 0 || y >= height || first >= last;
      const scalar* near = map + (y * width + x) * channels;
      if (!none && first == 0 && last == part) {
        inner<kTwo>(query0, query1, near, part, values0, values1);
        continue;
      }
      std::fill(values0, values0 + part, scalar(0));
      if (kTwo) std::fill(values1, values1 + part, scalar(0));
      if (none) continue;
      scalar some0[kNear + kLanes], some1[kNear + kLanes];
      inner<kTwo>(query0, query1, near + first * channels, last - first, some0, some1);
      std::copy(some0, some0 + last - first, values0 + first);
      if (kTwo) std::copy(some1, some1 + last - first, values1 + first);
    }
  }
};

// Calls body(cell, level, target, values, pitch) with the integer neighbours of every window of a row of cells. Some
// cells are worked on together, one row of their neighbours after another, so that it is read while it is near.
template <typename Body>
void each_window(const scalar* query, const scalar* table, const scalar* flow, const Pyramid& p, index_t n, index_t y,
                 index_t height, index_t width, index_t channels, Body body) {
  constexpr index_t kStrip = 16;  // cells
  struct Pair {
    index_t cell, shift;
    bool two;
    Target a, b;
  };
  const index_t plane = height * width, side = p.side();
  const index_t pitch = side + 1 + kNear + kLanes, size = side * pitch;  // the products write ahead
  Neighbours neighbours{channels};
  std::vector<scalar> values(2 * kStrip * size);
  Pair pairs[kStrip];
  for (index_t level = 0; level < p.levels; ++level) {
    const scalar* map = table + (n * p.cells + p.start[level]) * channels;
    for (index_t x = 0; x < width;) {
      index_t count = 0;
      for (const index_t end = std::min(width, x + kStrip); x < end; ++count) {
        Pair& pair = pairs[count];
        pair.cell = y * width + x;
        pair.a = target_of(p, flow, width, plane, n, pair.cell, level);
        pair.two = false;
        pair.shift = 0;
        if (x + 1 < end) {
          pair.b = target_of(p, flow, width, plane, n, pair.cell + 1, level);
          pair.shift = pair.b.x - pair.a.x;
          pair.two = pair.b.y == pair.a.y && pair.shift >= 0 && pair.shift <= 1;
        }
        if (!pair.two) pair.shift = 0;
        x += pair.two ? 2 : 1;
      }
      for (index_t j = 0; j < side; ++j)
        for (index_t i = 0; i < count; ++i) {
          const Pair& pair = pairs[i];
          const scalar* query0 = query + (n * plane + pair.cell) * channels;
          scalar* row = values.data() + 2 * i * size + j * pitch;
          const auto run = [&](auto two) {
            neighbours.row<two.value>(query0, query0 + channels, map, p.height[level], p.width[level], pair.a.x,
                                      pair.a.y + j, side + pair.shift, row, row + size);
          };
          pair.two ? run(std::true_type{}) : run(std::false_type{});
        }
      for (index_t i = 0; i < count; ++i) {
        const scalar* first = values.data() + 2 * i * size;
        body(pairs[i].cell, level, pairs[i].a, first, pitch);
        if (pairs[i].two) body(pairs[i].cell + 1, level, pairs[i].b, first + size + pairs[i].shift, pitch);
      }
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
    std::vector<scalar> values(side * p.pitch());
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
        gather(volume + job * p.cells + p.start[level], p.height[level], p.width[level], t, side, values.data(),
               p.pitch());
        blend(values.data(), p.pitch(), t, p.offsets(), out + job * p.outputs() + level * window);
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
    std::vector<scalar> values(side * p.pitch());
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
                 p.pitch());
          scalar level_slope[2] = {};
          slopes(values.data(), p.pitch(), own, t, p.offsets(), level_slope);
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
#pragma omp parallel for schedule(dynamic)
  for (index_t row = 0; row < count * height; ++row) {
    const index_t n = row / height;
    each_window(query, table, flow, p, n, row % height, height, width, channels,
                [&](index_t cell, index_t level, const Target& t, const scalar* values, index_t pitch) {
                  blend(values, pitch, t, p.offsets(), out + (n * plane + cell) * p.outputs() + level * window);
                });
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
        std::vector<scalar> slope(2 * width);
#pragma omp for schedule(dynamic)
      for (index_t row = 0; row < count * height; ++row) {
        const index_t n = row / height, y = row % height;
        std::fill(slope.begin(), slope.end(), scalar(0));
        each_window(query, table, flow, p, n, y, height, width, channels,
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
