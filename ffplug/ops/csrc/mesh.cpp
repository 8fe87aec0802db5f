// Z-buffer of triangles: bands of rows, each with the list of its triangles in index order, vectors along a row.
//
// Coverage and depth are computed in double, and without fused multiply-adds, so that every backend takes the same
// decisions and that an edge has exactly opposite values for the two triangles that share it.
#ifdef __clang__
#pragma clang fp contract(off)
#else
#pragma GCC optimize("fp-contract=off")
#endif

#include <limits>
#include <vector>

#include "ffplug.h"

namespace {

constexpr index_t kWide = FFPLUG_VECTOR_BYTES / sizeof(double);
constexpr index_t kBand = 16;    // rows of a band
constexpr index_t kImages = 16;  // images whose triangles are held at a time
typedef double wide __attribute__((vector_size(FFPLUG_VECTOR_BYTES)));
typedef int64_t wide_int __attribute__((vector_size(FFPLUG_VECTOR_BYTES)));

template <typename T>
inline T get(const void* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

// Edge k lies opposite corner k; its value is dx (y - ay) - dy (x - ax), positive inside.
struct Face {
  double ax[3], ay[3], dx[3], dy[3], inverse[3];
  int64_t closed[3];  // all bits set where a centre on the edge belongs to the triangle: left and top edges
  index_t x0, x1, y0, y1;
};

inline index_t clamp_index(double value, index_t low, index_t high) {
  return value <= double(low) ? low : value >= double(high) ? high : index_t(value);
}

// False for what is not drawn: behind the near plane, without area, not finite, off the image.
bool set_up(const scalar* vertices, const int64_t* corner, double near, index_t height, index_t width, Face* face) {
  double x[3], y[3];
  for (int k = 0; k < 3; ++k) {
    const scalar* at = vertices + corner[k] * 3;
    x[k] = at[0], y[k] = at[1];
    if (!std::isfinite(x[k]) || !std::isfinite(y[k]) || !(at[2] > near) || !std::isfinite(at[2])) return false;
    face->inverse[k] = 1.0 / double(at[2]);
  }
  const double area = (x[1] - x[0]) * (y[2] - y[0]) - (y[1] - y[0]) * (x[2] - x[0]);
  if (area == 0) return false;
  for (int k = 0; k < 3; ++k) {
    int from = (k + 1) % 3, to = (k + 2) % 3;
    double sign = area > 0 ? 1 : -1;
    // The lower end first, whichever triangle asks.
    if (x[from] > x[to] || (x[from] == x[to] && y[from] > y[to])) std::swap(from, to), sign = -sign;
    face->ax[k] = x[from], face->ay[k] = y[from];
    face->dx[k] = sign * (x[to] - x[from]), face->dy[k] = sign * (y[to] - y[from]);
    face->closed[k] = face->dy[k] < 0 || (face->dy[k] == 0 && face->dx[k] > 0) ? -1 : 0;
  }
  face->x0 = clamp_index(std::ceil(std::min({x[0], x[1], x[2]})), 0, width);
  face->x1 = clamp_index(std::floor(std::max({x[0], x[1], x[2]})), -1, width - 1);
  face->y0 = clamp_index(std::ceil(std::min({y[0], y[1], y[2]})), 0, height);
  face->y1 = clamp_index(std::floor(std::max({y[0], y[1], y[2]})), -1, height - 1);
  return face->x0 <= face->x1 && face->y0 <= face->y1;
}

struct Band {
  index_t pitch;
  std::vector<double> depth, corner[3];
  std::vector<int64_t> id;

  explicit Band(index_t width) : pitch(width + kWide), depth(kBand * pitch), id(kBand * pitch) {
    for (auto& plane : corner) plane.resize(kBand * pitch);
  }

  void clear() {
    std::fill(depth.begin(), depth.end(), std::numeric_limits<double>::infinity());
    std::fill(id.begin(), id.end(), -1);
    for (auto& plane : corner) std::fill(plane.begin(), plane.end(), 0.0);
  }

  void draw(const Face& face, int64_t number, index_t first, index_t last) {
    const wide zero = {};
    wide ramp;
    for (index_t i = 0; i < kWide; ++i) ramp[i] = double(i);
    for (index_t y = std::max(face.y0, first); y <= std::min(face.y1, last); ++y) {
      double row[3];
      for (int k = 0; k < 3; ++k) row[k] = face.dx[k] * (double(y) - face.ay[k]);
      for (index_t x = face.x0; x <= face.x1; x += kWide) {
        const wide column = double(x) + ramp;
        wide edge[3];
        wide_int inside;
        for (int k = 0; k < 3; ++k) {
          edge[k] = row[k] - face.dy[k] * (column - face.ax[k]);
          const wide_int in = (edge[k] > zero) | ((edge[k] == zero) & (face.closed[k] - wide_int{}));
          inside = k ? inside & in : in;
        }
        int64_t any = 0;
        for (index_t i = 0; i < kWide; ++i) any |= inside[i];
        if (!any) continue;
        const wide part[3] = {edge[0] * face.inverse[0], edge[1] * face.inverse[1], edge[2] * face.inverse[2]};
        const wide sum = part[0] + part[1] + part[2], z = (edge[0] + edge[1] + edge[2]) / sum;
        const index_t at = (y - first) * pitch + x;
        const wide before = get<wide>(&depth[at]);
        const wide_int wins = inside & (z < before);
        const wide scale = 1.0 / sum;
        auto put = [&](void* to, auto value) {
          const auto old = get<decltype(value)>(to);
          value = wins ? value : old;
          std::memcpy(to, &value, sizeof(value));
        };
        put(&depth[at], z);
        put(&id[at], number - wide_int{});
        for (int k = 0; k < 3; ++k) put(&corner[k][at], part[k] * scale);
      }
    }
  }
};

}  // namespace

// vertices N x V x 3 (x, y, depth), faces F x 3 -> barycentrics N x H x W x 3, depth and triangle N x H x W
FFPLUG_EXPORT void mesh_rasterize(const scalar* vertices, const int64_t* faces, scalar* barycentrics, scalar* depth,
                                  int32_t* triangle, index_t count, index_t points, index_t number, index_t height,
                                  index_t width, double near) {
  const index_t bands = (height + kBand - 1) / kBand, group = std::min(count, kImages);
  std::vector<Face> set(group * number);
  std::vector<uint8_t> drawn(group * number);
  std::vector<std::vector<index_t>> lists(group * bands);
  for (index_t start = 0; start < count; start += group) {
    const index_t images = std::min(group, count - start);
#pragma omp parallel
    {
#pragma omp for
      for (index_t i = 0; i < images * number; ++i)
        drawn[i] = set_up(vertices + (start + i / number) * points * 3, faces + i % number * 3, near, height, width,
                          &set[i]);
#pragma omp for
      for (index_t image = 0; image < images; ++image) {
        for (index_t b = 0; b < bands; ++b) lists[image * bands + b].clear();
        for (index_t i = image * number; i < (image + 1) * number; ++i)
          if (drawn[i])
            for (index_t b = set[i].y0 / kBand; b <= set[i].y1 / kBand; ++b) lists[image * bands + b].push_back(i);
      }
      Band band(width);
#pragma omp for schedule(dynamic)
      for (index_t b = 0; b < images * bands; ++b) {
        const index_t image = b / bands, first = b % bands * kBand, last = std::min(first + kBand, height) - 1;
        band.clear();
        // In index order, so that the lowest index keeps a tie.
        for (index_t i : lists[b]) band.draw(set[i], i - image * number, first, last);
        for (index_t y = first; y <= last; ++y) {
          const index_t from = (y - first) * band.pitch, to = ((start + image) * height + y) * width;
          for (index_t x = 0; x < width; ++x) {
            triangle[to + x] = int32_t(band.id[from + x]);
            depth[to + x] = band.id[from + x] < 0 ? scalar(0) : scalar(band.depth[from + x]);
            for (int k = 0; k < 3; ++k) barycentrics[(to + x) * 3 + k] = scalar(band.corner[k][from + x]);
          }
        }
      }
    }
  }
}

// Each triangle collects from the pixels it won, then each vertex from its triangles, in index order.
// `shares` F x 9 is scratch.
FFPLUG_EXPORT void mesh_rasterize_backward(const scalar* grad_barycentrics, const scalar* grad_depth,
                                           const scalar* vertices, const int64_t* faces, const int32_t* triangle,
                                           scalar* grad, double* shares, index_t count, index_t points, index_t number,
                                           index_t height, index_t width, double near) {
  std::vector<double> total(points * 3);
  for (index_t n = 0; n < count; ++n) {
    const scalar* own = vertices + n * points * 3;
#pragma omp parallel for schedule(dynamic, 64)
    for (index_t f = 0; f < number; ++f) {
      double* share = shares + f * 9;
      std::fill(share, share + 9, 0.0);
      Face face;
      const int64_t* corner = faces + f * 3;
      if (!set_up(own, corner, near, height, width, &face)) continue;
      double x[3], y[3];
      for (int k = 0; k < 3; ++k) x[k] = own[corner[k] * 3], y[k] = own[corner[k] * 3 + 1];
      for (index_t row = face.y0; row <= face.y1; ++row)
        for (index_t column = face.x0; column <= face.x1; ++column) {
          const index_t at = (n * height + row) * width + column;
          if (triangle[at] != f) continue;
          double edge[3], part[3], sum = 0, area = 0;
          for (int k = 0; k < 3; ++k) {
            const int a = (k + 1) % 3, b = (k + 2) % 3;
            edge[k] = (x[b] - x[a]) * (row - y[a]) - (y[b] - y[a]) * (column - x[a]);
            part[k] = edge[k] * face.inverse[k];
            sum += part[k], area += edge[k];
          }
          const scalar* outer = grad_barycentrics + at * 3;
          double mean = grad_depth[at] * area / sum;
          for (int k = 0; k < 3; ++k) mean += outer[k] * part[k] / sum;
          for (int k = 0; k < 3; ++k) {
            const int a = (k + 1) % 3, b = (k + 2) % 3;
            const double to_part = (outer[k] - mean) / sum;
            const double to_edge = to_part * face.inverse[k] + grad_depth[at] / sum;
            share[k * 3 + 2] -= to_part * edge[k] * face.inverse[k] * face.inverse[k];
            share[a * 3] += to_edge * (y[b] - row);
            share[a * 3 + 1] += to_edge * (column - x[b]);
            share[b * 3] += to_edge * (row - y[a]);
            share[b * 3 + 1] += to_edge * (x[a] - column);
          }
        }
    }
    std::fill(total.begin(), total.end(), 0.0);
    for (index_t f = 0; f < number; ++f)
      for (int k = 0; k < 3; ++k)
        for (int c = 0; c < 3; ++c) total[faces[f * 3 + k] * 3 + c] += shares[f * 9 + k * 3 + c];
    std::copy(total.begin(), total.end(), grad + n * points * 3);
  }
}
