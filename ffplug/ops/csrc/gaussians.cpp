// Compositing of projected Gaussians: tiles of 16 x 16 pixels, lists in depth order, vectors along a row.
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include <array>
#include <vector>

#include "ffplug.h"

namespace {

constexpr index_t kTile = 16;
constexpr index_t kVectors = kTile / kLanes;      // of a row
constexpr index_t kSquare = kTile * kVectors;     // of a tile
constexpr index_t kRay = 21;                      // numbers of a Gaussian's ray map
constexpr index_t kShape = 6;                     // gradients of a Gaussian beside those of its features
typedef decltype(vec{} < vec{}) mask;

inline bool any(mask m) {
#if defined(__AVX512F__) && FFPLUG_VECTOR_BYTES == 64
  __m512i bits;
  std::memcpy(&bits, &m, sizeof(bits));
  return _mm512_test_epi64_mask(bits, bits) != 0;
#elif defined(__AVX2__) && FFPLUG_VECTOR_BYTES == 32
  __m256i bits;
  std::memcpy(&bits, &m, sizeof(bits));
  return !_mm256_testz_si256(bits, bits);
#else
  int64_t parts[sizeof(mask) / 8], all = 0;
  std::memcpy(parts, &m, sizeof(m));
  for (int64_t part : parts) all |= part;
  return all != 0;
#endif
}

inline vec ramp() {
  vec value;
  for (index_t i = 0; i < kLanes; ++i) value[i] = scalar(i);
  return value;
}

struct Rules {
  scalar alpha_max, alpha_min, stop;
};

struct Splat {
  scalar x, y, a, b, c, opacity, limit;
  index_t id;
  int32_t left, right, top, bottom;  // pixels it can reach; none where left > right
};

inline int32_t clamp_pixel(double value, index_t low, index_t high) {
  return int32_t(value <= double(low) ? low : value >= double(high) ? high : value);
}

Splat set_up(const scalar* means, const scalar* conics, const scalar* opacities, index_t id, index_t height,
             index_t width, double alpha_min) {
  const scalar *mean = means + id * 2, *conic = conics + id * 3;
  Splat s{mean[0], mean[1], conic[0], conic[1], conic[2], opacities[id], 0, id, 0, -1, 0, -1};
  const double a = s.a, b = s.b, c = s.c, det = a * c - b * b;
  if (!(s.opacity >= scalar(alpha_min)) || !std::isfinite(s.opacity) || !(a > 0) || !(det > 0) || !std::isfinite(det) ||
      !std::isfinite(s.x) || !std::isfinite(s.y))
    return s;
  // Beyond the reach alpha is below its least value; the slack leaves the decision to alpha itself.
  const double reach = std::log(double(s.opacity) / alpha_min) + 1e-3;
  s.limit = scalar(reach * 1.001);
  const double rx = std::sqrt(2 * reach * c / det) * 1.001 + 0.01, ry = std::sqrt(2 * reach * a / det) * 1.001 + 0.01;
  s.left = clamp_pixel(std::ceil(s.x - rx - 0.5), 0, width);
  s.right = clamp_pixel(std::floor(s.x + rx - 0.5), -1, width - 1);
  s.top = clamp_pixel(std::ceil(s.y - ry - 0.5), 0, height);
  s.bottom = clamp_pixel(std::floor(s.y + ry - 0.5), -1, height - 1);
  if (s.top > s.bottom) s.right = s.left - 1;
  return s;
}

// Which Gaussians each tile composites: ranks in depth order, tile after tile.
struct Lists {
  index_t columns, rows;
  std::vector<Splat> splats;
  std::vector<std::array<int16_t, 2>> span;  // first and last row of tiles: every row of tiles goes through all of them
  std::vector<index_t> first;
  std::vector<int32_t> ranks;

  Lists(const scalar* means, const scalar* conics, const scalar* opacities, const int64_t* order, index_t number,
        index_t height, index_t width, double alpha_min)
      : columns((width + kTile - 1) / kTile), rows((height + kTile - 1) / kTile), splats(number), span(number),
        first(columns * rows + 1) {
#pragma omp parallel
    {
#pragma omp for
      for (index_t i = 0; i < number; ++i) {
        const Splat& s = splats[i] = set_up(means, conics, opacities, order[i], height, width, alpha_min);
        span[i] = {int16_t(s.left <= s.right ? s.top / kTile : 0), int16_t(s.left <= s.right ? s.bottom / kTile : -1)};
      }
#pragma omp for
      for (index_t row = 0; row < rows; ++row)
        each(row, [&](index_t tile, index_t) { ++first[tile + 1]; });
    }
    for (index_t tile = 0; tile < columns * rows; ++tile) first[tile + 1] += first[tile];
    ranks.resize(first.back());
    std::vector<index_t> next(first.begin(), first.end() - 1);
#pragma omp parallel for
    for (index_t row = 0; row < rows; ++row)
      each(row, [&](index_t tile, index_t rank) { ranks[next[tile]++] = int32_t(rank); });
  }

  template <typename Visit>
  void each(index_t row, Visit visit) {
    for (index_t i = 0; i < index_t(splats.size()); ++i) {
      if (span[i][0] > row || span[i][1] < row) continue;
      const Splat& s = splats[i];
      for (index_t column = s.left / kTile; column <= s.right / kTile; ++column) visit(row * columns + column, i);
    }
  }
};

// The pixels of a tile while Gaussians come in front to back.
struct Tile {
  index_t x, y, width, height;  // corner; size inside the image
  vec light[kSquare];           // transmittance
  mask alive[kSquare];

  Tile(index_t x, index_t y, index_t image_height, index_t image_width)
      : x(x), y(y), width(std::min(kTile, image_width - x)), height(std::min(kTile, image_height - y)) {
    for (index_t i = 0; i < kSquare; ++i) {
      light[i] = broadcast(1);
      const vec column = ramp() + scalar(i % kVectors * kLanes);
      alive[i] = i / kVectors < height ? column < broadcast(scalar(width)) : mask{};
    }
  }

  bool open() const {
    mask all = {};
    for (const mask& m : alive) all |= m;
    return any(all);
  }

  // Calls use(i, dx, dy, alpha, raw, before, keep) for each vector i of pixels that the Gaussian adds to; false once
  // no pixel lets light through.
  template <typename Use>
  bool pass(const Splat& s, const Rules& rules, Use use) {
    bool stopped = false;
    const index_t from = std::max<index_t>(s.top - y, 0), to = std::min<index_t>(s.bottom - y, height - 1);
    const index_t left = std::max<index_t>(s.left - x, 0) / kLanes;
    const index_t right = std::min<index_t>(s.right - x, kTile - 1) / kLanes;
    for (index_t row = from; row <= to; ++row) {
      const scalar dy = scalar(y + row) + scalar(0.5) - s.y, own = s.c * dy * dy * scalar(0.5), cross = s.b * dy;
      for (index_t v = left; v <= right; ++v) {
        const index_t i = row * kVectors + v;
        const vec dx = ramp() + (scalar(x + v * kLanes) + scalar(0.5) - s.x);
        const vec sigma = dx * (dx * (s.a * scalar(0.5)) + cross) + own;
        mask keep = alive[i] & (sigma <= broadcast(s.limit));
        if (!any(keep)) continue;
        const vec raw = s.opacity * vexp(-sigma), alpha = vmin(raw, broadcast(rules.alpha_max));
        keep &= alpha >= broadcast(rules.alpha_min);
        const vec before = light[i], after = before * (scalar(1) - alpha);
        const mask stop = keep & (after <= broadcast(rules.stop));
        if (any(stop)) alive[i] &= ~stop, keep &= ~stop, stopped = true;
        if (!any(keep)) continue;
        light[i] = keep ? after : before;
        use(i, dx, dy, alpha, raw, before, keep);
      }
    }
    return !stopped || open();
  }
};

// Where the Gaussian is densest along the pixel's ray, moved with it and seen again: offset in pixels.
inline void ray_flow(const scalar* ray, vec dx, scalar dy, vec* flow) {
  const scalar *c = ray, *q = ray + 3, *a = ray + 9, *shift = ray + 18;
  const vec n = dx * c[0] + (c[1] * dy + c[2]);
  const vec m = dx * (dx * q[0] + 2 * (q[1] * dy + q[2])) + (q[3] * dy * dy + 2 * q[4] * dy + q[5]);
  const vec s = n / m;
  vec to[3];
  for (int i = 0; i < 3; ++i) to[i] = s * (dx * a[i * 3] + (a[i * 3 + 1] * dy + a[i * 3 + 2])) + shift[i];
  flow[0] = to[0] / to[2] - dx;
  flow[1] = to[1] / to[2] - dy;
}

inline void write(scalar* plane, index_t pitch, const Tile& tile, const vec* values) {
  scalar row[kTile];
  for (index_t y = 0; y < tile.height; ++y) {
    for (index_t v = 0; v < kVectors; ++v) store(row + v * kLanes, values[y * kVectors + v]);
    std::memcpy(plane + (tile.y + y) * pitch + tile.x, row, tile.width * sizeof(scalar));
  }
}

inline void read(const scalar* plane, index_t pitch, const Tile& tile, vec* values) {
  scalar row[kTile] = {};
  for (index_t y = 0; y < kTile; ++y) {
    if (y < tile.height)
      std::memcpy(row, plane + (tile.y + y) * pitch + tile.x, tile.width * sizeof(scalar));
    else
      std::fill(row, row + kTile, scalar(0));
    for (index_t v = 0; v < kVectors; ++v) values[y * kVectors + v] = load(row + v * kLanes);
  }
}

inline void write(int32_t* plane, index_t pitch, const Tile& tile, const mask* values) {
  for (index_t y = 0; y < tile.height; ++y)
    for (index_t x = 0; x < tile.width; ++x)
      plane[(tile.y + y) * pitch + tile.x + x] = int32_t(values[y * kVectors + x / kLanes][x % kLanes]);
}

}  // namespace

// means M x 2, conics M x 3, opacities M, features M x C, background C, order M (by depth)
// -> image C x H x W, alpha H x W; contributors, median, top H x W
FFPLUG_EXPORT void gaussian_composite(const scalar* means, const scalar* conics, const scalar* opacities,
                                      const scalar* features, const scalar* background, const int64_t* order,
                                      scalar* image, scalar* opaque, int32_t* contributors, int32_t* median,
                                      int32_t* top, index_t number, index_t channels, index_t height, index_t width,
                                      double alpha_max, double alpha_min, double stop) {
  const Rules rules{scalar(alpha_max), scalar(alpha_min), scalar(stop)};
  const Lists lists(means, conics, opacities, order, number, height, width, alpha_min);
#pragma omp parallel
  {
    std::vector<vec> sum(channels * kSquare);
#pragma omp for schedule(dynamic)
    for (index_t t = 0; t < lists.columns * lists.rows; ++t) {
      Tile tile(t % lists.columns * kTile, t / lists.columns * kTile, height, width);
      vec best[kSquare] = {};
      mask count[kSquare] = {}, half[kSquare], first[kSquare];
      std::fill(sum.begin(), sum.end(), vec{});
      for (index_t i = 0; i < kSquare; ++i) half[i] = first[i] = ~mask{};
      for (index_t k = lists.first[t]; k < lists.first[t + 1]; ++k) {
        const Splat& s = lists.splats[lists.ranks[k]];
        const scalar* own = features + s.id * channels;
        const bool open = tile.pass(s, rules, [&](index_t i, vec, scalar, vec alpha, vec, vec before, mask keep) {
          const vec weight = keep ? alpha * before : vec{};
          for (index_t c = 0; c < channels; ++c) sum[c * kSquare + i] += weight * own[c];
          const mask id = mask{} + decltype(count[0][0] + 0)(s.id);
          const mask better = weight > best[i];
          count[i] -= keep;
          best[i] = better ? weight : best[i];
          first[i] = better ? id : first[i];
          half[i] = (keep & (before > broadcast(scalar(0.5)))) ? id : half[i];
        });
        if (!open) break;
      }
      for (index_t c = 0; c < channels; ++c) {
        for (index_t i = 0; i < kSquare; ++i) sum[c * kSquare + i] += tile.light[i] * background[c];
        write(image + c * height * width, width, tile, &sum[c * kSquare]);
      }
      for (vec& light : tile.light) light = scalar(1) - light;
      write(opaque, width, tile, tile.light);
      write(contributors, width, tile, count);
      write(median, width, tile, half);
      write(top, width, tile, first);
    }
  }
}

// rays M x 21 -> flow 2 x H x W: the weighted sum of each Gaussian's own flow at the pixel
FFPLUG_EXPORT void gaussian_ray_flow(const scalar* means, const scalar* conics, const scalar* opacities,
                                     const scalar* rays, const int64_t* order, scalar* flow, index_t number,
                                     index_t height, index_t width, double alpha_max, double alpha_min, double stop) {
  const Rules rules{scalar(alpha_max), scalar(alpha_min), scalar(stop)};
  const Lists lists(means, conics, opacities, order, number, height, width, alpha_min);
#pragma omp parallel for schedule(dynamic)
  for (index_t t = 0; t < lists.columns * lists.rows; ++t) {
    Tile tile(t % lists.columns * kTile, t / lists.columns * kTile, height, width);
    vec sum[2][kSquare] = {};
    for (index_t k = lists.first[t]; k < lists.first[t + 1]; ++k) {
      const Splat& s = lists.splats[lists.ranks[k]];
      const bool open = tile.pass(s, rules, [&](index_t i, vec dx, scalar dy, vec alpha, vec, vec before, mask keep) {
        vec own[2];
        ray_flow(rays + s.id * kRay, dx, dy, own);
        for (index_t c = 0; c < 2; ++c) sum[c][i] += keep ? alpha * before * own[c] : vec{};
      });
      if (!open) break;
    }
    for (index_t c = 0; c < 2; ++c) write(flow + c * height * width, width, tile, sum[c]);
  }
}

// Gradients of image and alpha -> those of means, conics, opacities and features.
//
// With u = g . (f - background) + g_alpha of a Gaussian at a pixel, the part of the loss behind it is the pixel's total
// less what came before, so one pass front to back suffices. Each tile leaves its share in a row of its own for each
// Gaussian of its list, and a Gaussian adds them in the order of tiles.
FFPLUG_EXPORT void gaussian_composite_backward(const scalar* grad_image, const scalar* grad_alpha, const scalar* means,
                                               const scalar* conics, const scalar* opacities, const scalar* features,
                                               const scalar* background, const int64_t* order, const scalar* image,
                                               const scalar* opaque, scalar* grad_means, scalar* grad_conics,
                                               scalar* grad_opacities, scalar* grad_features, index_t number,
                                               index_t channels, index_t height, index_t width, double alpha_max,
                                               double alpha_min, double stop) {
  const Rules rules{scalar(alpha_max), scalar(alpha_min), scalar(stop)};
  const Lists lists(means, conics, opacities, order, number, height, width, alpha_min);
  const index_t stride = kShape + channels, plane = height * width;
  std::vector<scalar> shares(lists.ranks.size() * stride);
#pragma omp parallel
  {
    std::vector<vec> outer(channels * kSquare), part(stride);
    std::vector<scalar> contrast(channels);
#pragma omp for schedule(dynamic)
    for (index_t t = 0; t < lists.columns * lists.rows; ++t) {
      Tile tile(t % lists.columns * kTile, t / lists.columns * kTile, height, width);
      vec behind[kSquare], outer_alpha[kSquare], values[kSquare];
      read(grad_alpha, width, tile, outer_alpha);
      read(opaque, width, tile, values);
      for (index_t i = 0; i < kSquare; ++i) behind[i] = outer_alpha[i] * values[i];
      for (index_t c = 0; c < channels; ++c) {
        read(grad_image + c * plane, width, tile, &outer[c * kSquare]);
        read(image + c * plane, width, tile, values);
        for (index_t i = 0; i < kSquare; ++i) behind[i] += outer[c * kSquare + i] * (values[i] - background[c]);
      }
      for (index_t k = lists.first[t]; k < lists.first[t + 1]; ++k) {
        const Splat& s = lists.splats[lists.ranks[k]];
        for (index_t c = 0; c < channels; ++c) contrast[c] = features[s.id * channels + c] - background[c];
        std::fill(part.begin(), part.end(), vec{});
        bool added = false;
        const auto use = [&](index_t i, vec dx, scalar dy, vec alpha, vec raw, vec before, mask keep) {
          const vec weight = keep ? alpha * before : vec{};
          vec gain = outer_alpha[i];
          for (index_t c = 0; c < channels; ++c) {
            const vec slope = outer[c * kSquare + i];
            gain += slope * contrast[c];
            part[kShape + c] += weight * slope;
          }
          behind[i] -= weight * gain;
          const vec slope = before * gain - behind[i] / (scalar(1) - alpha);
          // No gradient through the clamp.
          const vec to_sigma = keep & (raw <= broadcast(rules.alpha_max)) ? -alpha * slope : vec{};
          const vec along = to_sigma * dx;
          part[0] += along;
          part[1] += to_sigma * dy;
          part[2] += along * dx;
          part[3] += along * dy;
          part[4] += to_sigma * (dy * dy);
          part[5] += to_sigma;
          added = true;
        };
        const bool open = tile.pass(s, rules, use);
        if (added)
          for (index_t j = 0; j < stride; ++j) shares[k * stride + j] = reduce(part[j]);
        if (!open) break;
      }
    }
    std::vector<scalar> total(stride);
#pragma omp for
    for (index_t rank = 0; rank < number; ++rank) {
      const Splat& s = lists.splats[rank];
      std::fill(total.begin(), total.end(), scalar(0));
      if (s.left <= s.right)
        for (index_t row = s.top / kTile; row <= s.bottom / kTile; ++row)
          for (index_t column = s.left / kTile; column <= s.right / kTile; ++column) {
            const index_t tile = row * lists.columns + column;
            const auto begin = lists.ranks.begin() + lists.first[tile];
            const auto end = lists.ranks.begin() + lists.first[tile + 1];
            const index_t k = std::lower_bound(begin, end, int32_t(rank)) - lists.ranks.begin();
            for (index_t j = 0; j < stride; ++j) total[j] += shares[k * stride + j];
          }
      grad_means[s.id * 2] = -(s.a * total[0] + s.b * total[1]);
      grad_means[s.id * 2 + 1] = -(s.b * total[0] + s.c * total[1]);
      grad_conics[s.id * 3] = total[2] / 2;
      grad_conics[s.id * 3 + 1] = total[3];
      grad_conics[s.id * 3 + 2] = total[4] / 2;
      grad_opacities[s.id] = s.opacity != 0 ? -total[5] / s.opacity : 0;
      for (index_t c = 0; c < channels; ++c) grad_features[s.id * channels + c] = total[kShape + c];
    }
  }
}
