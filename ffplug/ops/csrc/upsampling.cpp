// Convex upsampling: softmax over nine neighbours and their combination in one pass over a cell, channels last.
#include <vector>

#include "ffplug.h"

namespace {

struct Shape {
  index_t count, height, width, factor, fine;  // fine: factor * factor

  index_t cells() const { return count * height * width; }
};

// The nine neighbours' flow in fine pixels, zero outside: values[k][channel].
inline void neighbours(const scalar* flow, const Shape& s, index_t n, index_t y, index_t x, scalar (*values)[2]) {
  const index_t plane = s.height * s.width;
  for (index_t k = 0; k < 9; ++k) {
    const index_t row = y + k / 3 - 1, column = x + k % 3 - 1;
    const bool inside = row >= 0 && row < s.height && column >= 0 && column < s.width;
    const scalar* at = flow + n * 2 * plane + row * s.width + column;
    values[k][0] = inside ? at[0] * s.factor : 0;
    values[k][1] = inside ? at[plane] * s.factor : 0;
  }
}

inline void softmax(const scalar* logits, const Shape& s, index_t start, index_t lanes, vec* weight) {
  vec highest;
  for (index_t k = 0; k < 9; ++k) {
    weight[k] = lanes == kLanes ? load(logits + k * s.fine + start) : load_part(logits + k * s.fine + start, lanes);
    highest = k ? vmax(highest, weight[k]) : weight[k];
  }
  vec total = {};
  for (index_t k = 0; k < 9; ++k) total += weight[k] = vexp(weight[k] - highest);
  const vec inverse = scalar(1) / total;
  for (index_t k = 0; k < 9; ++k) weight[k] *= inverse;
}

// Between one cell's factor x factor values in a row and its square in the fine map N x 2 x fh x fw.
template <bool kWrite, typename Fine>
inline void exchange(Fine* map, scalar* cell, const Shape& s, index_t n, index_t channel, index_t y, index_t x) {
  const index_t pitch = s.width * s.factor;
  Fine* corner = map + (n * 2 + channel) * s.cells() / s.count * s.fine + y * s.factor * pitch + x * s.factor;
  for (index_t i = 0; i < s.factor; ++i) {
    if constexpr (kWrite)
      std::memcpy(corner + i * pitch, cell + i * s.factor, s.factor * sizeof(scalar));
    else
      std::memcpy(cell + i * s.factor, corner + i * pitch, s.factor * sizeof(scalar));
  }
}

}  // namespace

// flow N x 2 x h x w, logits N x h x w x (9 factor^2) -> fine N x 2 x (factor h) x (factor w)
FFPLUG_EXPORT void convex_upsample(const scalar* flow, const scalar* logits, scalar* fine, index_t count,
                                   index_t height, index_t width, index_t factor) {
  const Shape s{count, height, width, factor, factor * factor};
#pragma omp parallel
  {
    std::vector<scalar> cell(2 * (s.fine + kLanes));
    scalar* parts[2] = {cell.data(), cell.data() + s.fine + kLanes};
#pragma omp for
    for (index_t row = 0; row < count * height; ++row) {
      const index_t n = row / height, y = row % height;
      for (index_t x = 0; x < width; ++x) {
        scalar around[9][2];
        neighbours(flow, s, n, y, x, around);
        const scalar* own = logits + (row * width + x) * 9 * s.fine;
        for (index_t start = 0; start < s.fine; start += kLanes) {
          vec weight[9], sum[2] = {};
          softmax(own, s, start, std::min(kLanes, s.fine - start), weight);
          for (index_t k = 0; k < 9; ++k)
            for (index_t c = 0; c < 2; ++c) sum[c] += weight[k] * around[k][c];
          for (index_t c = 0; c < 2; ++c) store(parts[c] + start, sum[c]);
        }
        for (index_t c = 0; c < 2; ++c) exchange<true>(fine, parts[c], s, n, c, y, x);
      }
    }
  }
}

// Gradients of the fine map -> those of flow and logits; `shares` N x h x w x 9 x 2 is scratch.
FFPLUG_EXPORT void convex_upsample_backward(const scalar* grad, const scalar* flow, const scalar* logits,
                                            scalar* grad_flow, scalar* grad_logits, scalar* shares, index_t count,
                                            index_t height, index_t width, index_t factor) {
  const Shape s{count, height, width, factor, factor * factor};
  const index_t plane = height * width;
#pragma omp parallel
  {
    std::vector<scalar> cell(2 * (s.fine + kLanes));
    scalar* parts[2] = {cell.data(), cell.data() + s.fine + kLanes};
#pragma omp for
    for (index_t row = 0; row < count * height; ++row) {
      const index_t n = row / height, y = row % height;
      for (index_t x = 0; x < width; ++x) {
        scalar around[9][2];
        neighbours(flow, s, n, y, x, around);
        for (index_t c = 0; c < 2; ++c) exchange<false>(grad, parts[c], s, n, c, y, x);
        const index_t at = row * width + x;
        vec share[9][2] = {};
        for (index_t start = 0; start < s.fine; start += kLanes) {
          const index_t lanes = std::min(kLanes, s.fine - start);
          vec weight[9], slope[9], mean = {};
          softmax(logits + at * 9 * s.fine, s, start, lanes, weight);
          const vec outer[2] = {load_part(parts[0] + start, lanes), load_part(parts[1] + start, lanes)};
          for (index_t k = 0; k < 9; ++k) {
            slope[k] = outer[0] * around[k][0] + outer[1] * around[k][1];
            mean += weight[k] * slope[k];
            for (index_t c = 0; c < 2; ++c) share[k][c] += weight[k] * outer[c];
          }
          for (index_t k = 0; k < 9; ++k)
            store_part(grad_logits + (at * 9 + k) * s.fine + start, weight[k] * (slope[k] - mean), lanes);
        }
        for (index_t k = 0; k < 9; ++k)
          for (index_t c = 0; c < 2; ++c) shares[(at * 9 + k) * 2 + c] = reduce(share[k][c]) * factor;
      }
    }
    // A cell collects what its nine neighbours owe it, so that no two threads write to one place.
#pragma omp for
    for (index_t row = 0; row < count * height; ++row) {
      const index_t n = row / height, y = row % height;
      for (index_t x = 0; x < width; ++x)
        for (index_t c = 0; c < 2; ++c) {
          scalar sum = 0;
          for (index_t k = 0; k < 9; ++k) {
            const index_t from_y = y - (k / 3 - 1), from_x = x - (k % 3 - 1);
            if (from_y < 0 || from_y >= height || from_x < 0 || from_x >= width) continue;
            sum += shares[(((n * height + from_y) * width + from_x) * 9 + k) * 2 + c];
          }
          grad_flow[(n * 2 + c) * plane + y * width + x] = sum;
        }
    }
  }
}
