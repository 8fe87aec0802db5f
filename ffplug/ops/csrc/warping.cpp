// Bilinear sampling along a flow, its adjoint (splatting) and its slope; and the nearest moved cell of a flow.
#include <vector>

#include "ffplug.h"

namespace {

constexpr index_t kChunk = 256;  // pixels whose taps are computed at once

// The four taps of up to kChunk pixels of a row: the upper left one's place and the weights of two rows and columns.
// A tap outside the image has weight 0 and the place of one inside. The slopes are the weights' derivatives.
struct Taps {
  int32_t x[kChunk], y[kChunk];
  scalar left[kChunk], right[kChunk], upper[kChunk], lower[kChunk];
  scalar left_slope[kChunk], right_slope[kChunk], upper_slope[kChunk], lower_slope[kChunk];
};

// One axis: weights of `base` and `base + 1`, with base in 0..size-2 (0 where size is 1). Selections in place of
// branches, each of a value computed before, so that the compiler makes vectors of it.
template <int kStep, bool kSlope>
inline void axis(const scalar* __restrict flow, index_t start, index_t count, index_t size, bool border,
                 int32_t* __restrict base, scalar* __restrict first, scalar* __restrict second,
                 scalar* __restrict first_slope, scalar* __restrict second_slope) {
  const scalar last = size - 1, inner = std::max<index_t>(size - 2, 0), zero = 0, one = 1;
  const scalar lowest = border ? 0 : -2, highest = border ? last : last + 2;
  const scalar cut = border ? 0 : 1;
  for (index_t i = 0; i < count; ++i) {
    const scalar at = scalar(int32_t(start) + kStep * int32_t(i)) + flow[i];
    const scalar high = at < highest ? at : highest;
    const scalar kept = at > lowest ? high : lowest;  // NaN goes to `lowest`, a place outside
    const scalar whole = scalar(int32_t(kept)), less = whole - one;
    const scalar below = whole > kept ? less : whole, next = below + one;
    const scalar fraction = kept - below, rest = one - fraction;
    scalar a = below >= zero ? rest : zero;
    a = below <= last ? a : zero;
    scalar b = next >= zero ? fraction : zero;
    b = next <= last ? b : zero;
    // At the image's edges only one tap is inside, and it may be the other one of the pair that is read.
    scalar place = below < zero ? zero : below;
    place = place > inner ? inner : place;
    const scalar left = below > place ? zero : a, right = below < place ? zero : b;
    first[i] = below < place ? b : left;
    second[i] = below > place ? a : right;
    base[i] = int32_t(place);
    if (kSlope) {
      scalar moves = at > lowest ? one : cut;
      moves = at < highest ? moves : cut;
      const scalar falls = -moves;
      scalar c = below >= zero ? falls : zero;
      c = below <= last ? c : zero;
      scalar d = next >= zero ? moves : zero;
      d = next <= last ? d : zero;
      const scalar left_slope = below > place ? zero : c, right_slope = below < place ? zero : d;
      first_slope[i] = below < place ? d : left_slope;
      second_slope[i] = below > place ? c : right_slope;
    }
  }
}

template <bool kSlope>
inline void find_taps(const scalar* flow, index_t plane, index_t y, index_t x, index_t count, index_t height,
                      index_t width, bool border, Taps& t) {
  const scalar* at = flow + y * width + x;
  axis<1, kSlope>(at, x, count, width, border, t.x, t.left, t.right, t.left_slope, t.right_slope);
  axis<0, kSlope>(at + plane, y, count, height, border, t.y, t.upper, t.lower, t.upper_slope, t.lower_slope);
}

// Two neighbours in a row for each pixel: loading pairs is several times faster than gathering four taps.
inline void read_pairs(const scalar* row, const index_t* offset, index_t count, index_t beside, scalar* pairs) {
  if (beside == 1)
    for (index_t i = 0; i < count; ++i) std::memcpy(pairs + 2 * i, row + offset[i], 2 * sizeof(scalar));
  else
    for (index_t i = 0; i < count; ++i) {
      pairs[2 * i] = row[offset[i]];
      pairs[2 * i + 1] = row[offset[i] + beside];
    }
}

struct Sizes {
  index_t count, channels, height, width;
  bool border;
};

template <typename Each>
void each_chunk(const Sizes& s, Each each) {
#pragma omp parallel
  {
    Taps taps;
#pragma omp for
    for (index_t row = 0; row < s.count * s.height; ++row)
      for (index_t x = 0; x < s.width; x += kChunk)
        each(row / s.height, row % s.height, x, std::min(kChunk, s.width - x), taps);
  }
}

}  // namespace

// out(p) = image(p + flow(p)). Images come with their strides; `last` says that a pixel's channels lie together and are
// many, so that vectors run over them, else they run over pixels.
FFPLUG_EXPORT void bilinear_gather(const scalar* image, const scalar* flow, scalar* out, index_t sample,
                                   index_t channel, index_t row_stride, index_t column, index_t out_sample,
                                   index_t out_channel, index_t out_row, index_t out_column, index_t count,
                                   index_t channels, index_t height, index_t width, index_t border, index_t last) {
  const Sizes s{count, channels, height, width, bool(border)};
  const index_t plane = height * width, below = height > 1 ? row_stride : 0, beside = width > 1 ? column : 0;
  each_chunk(s, [&](index_t n, index_t y, index_t x, index_t pixels, Taps& taps) {
    find_taps<false>(flow + n * 2 * plane, plane, y, x, pixels, height, width, s.border, taps);
    const scalar* from = image + n * sample;
    scalar* to = out + n * out_sample + y * out_row + x * out_column;
    if (last) {
      for (index_t i = 0; i < pixels; ++i) {
        const scalar* corner = from + taps.y[i] * row_stride + taps.x[i] * column;
        const scalar weight[4] = {taps.upper[i] * taps.left[i], taps.upper[i] * taps.right[i],
                                  taps.lower[i] * taps.left[i], taps.lower[i] * taps.right[i]};
        const scalar *p0 = corner, *p1 = corner + beside, *p2 = corner + below, *p3 = p2 + beside;
        scalar* pixel = to + i * out_column;
        index_t c = 0;
        for (; c + kLanes <= channels; c += kLanes)
          store(pixel + c, load(p0 + c) * weight[0] + load(p1 + c) * weight[1] + load(p2 + c) * weight[2] +
                               load(p3 + c) * weight[3]);
        for (; c < channels; ++c)
          pixel[c] = p0[c] * weight[0] + p1[c] * weight[1] + p2[c] * weight[2] + p3[c] * weight[3];
      }
      return;
    }
    index_t offset[kChunk];
    for (index_t i = 0; i < pixels; ++i) offset[i] = taps.y[i] * row_stride + taps.x[i] * column;
    scalar upper[2 * kChunk], lower[2 * kChunk], apart[kChunk];
    for (index_t c = 0; c < channels; ++c) {
      read_pairs(from + c * channel, offset, pixels, beside, upper);
      read_pairs(from + c * channel + below, offset, pixels, beside, lower);
      scalar* line = out_column == 1 ? to + c * out_channel : apart;
      for (index_t i = 0; i < pixels; ++i)
        line[i] = taps.upper[i] * (taps.left[i] * upper[2 * i] + taps.right[i] * upper[2 * i + 1]) +
                  taps.lower[i] * (taps.left[i] * lower[2 * i] + taps.right[i] * lower[2 * i + 1]);
      if (out_column != 1)
        for (index_t i = 0; i < pixels; ++i) to[c * out_channel + i * out_column] = apart[i];
    }
  });
}

// slope(p) = sum over channels of weight(p) times the derivative of image at p + flow(p), for x and y.
FFPLUG_EXPORT void bilinear_slope(const scalar* image, const scalar* flow, const scalar* weight, scalar* slope,
                                  index_t sample, index_t channel, index_t row_stride, index_t column,
                                  index_t weight_sample, index_t weight_channel, index_t weight_row,
                                  index_t weight_column, index_t count, index_t channels, index_t height,
                                  index_t width, index_t border, index_t last) {
  const Sizes s{count, channels, height, width, bool(border)};
  const index_t plane = height * width, below = height > 1 ? row_stride : 0, beside = width > 1 ? column : 0;
  each_chunk(s, [&](index_t n, index_t y, index_t x, index_t pixels, Taps& taps) {
    find_taps<true>(flow + n * 2 * plane, plane, y, x, pixels, height, width, s.border, taps);
    const scalar* from = image + n * sample;
    const scalar* by = weight + n * weight_sample + y * weight_row + x * weight_column;
    scalar sum[4][kChunk] = {};  // of each tap's products, which weights and slopes combine afterwards
    if (last) {
      for (index_t i = 0; i < pixels; ++i) {
        const scalar* corner = from + taps.y[i] * row_stride + taps.x[i] * column;
        const scalar* tap[4] = {corner, corner + beside, corner + below, corner + below + beside};
        const scalar* own = by + i * weight_column;
        vec total[4] = {};
        index_t c = 0;
        for (; c + kLanes <= channels; c += kLanes) {
          const vec value = load(own + c);
          for (index_t k = 0; k < 4; ++k) total[k] += value * load(tap[k] + c);
        }
        if (c < channels) {
          const vec value = load_part(own + c, channels - c);
          for (index_t k = 0; k < 4; ++k) total[k] += value * load_part(tap[k] + c, channels - c);
        }
        for (index_t k = 0; k < 4; ++k) sum[k][i] = reduce(total[k]);
      }
    } else {
      index_t offset[kChunk];
      for (index_t i = 0; i < pixels; ++i) offset[i] = taps.y[i] * row_stride + taps.x[i] * column;
      scalar upper[2 * kChunk], lower[2 * kChunk], together[kChunk];
      for (index_t c = 0; c < channels; ++c) {
        read_pairs(from + c * channel, offset, pixels, beside, upper);
        read_pairs(from + c * channel + below, offset, pixels, beside, lower);
        const scalar* own = by + c * weight_channel;
        if (weight_column != 1) {
          for (index_t i = 0; i < pixels; ++i) together[i] = own[i * weight_column];
          own = together;
        }
        for (index_t i = 0; i < pixels; ++i) {
          sum[0][i] += own[i] * upper[2 * i];
          sum[1][i] += own[i] * upper[2 * i + 1];
          sum[2][i] += own[i] * lower[2 * i];
          sum[3][i] += own[i] * lower[2 * i + 1];
        }
      }
    }
    scalar* to = slope + n * 2 * plane + y * width + x;
    for (index_t i = 0; i < pixels; ++i) {
      const scalar *l = taps.left, *r = taps.right, *u = taps.upper, *d = taps.lower;
      to[i] = u[i] * (taps.left_slope[i] * sum[0][i] + taps.right_slope[i] * sum[1][i]) +
              d[i] * (taps.left_slope[i] * sum[2][i] + taps.right_slope[i] * sum[3][i]);
      to[plane + i] = taps.upper_slope[i] * (l[i] * sum[0][i] + r[i] * sum[1][i]) +
                      taps.lower_slope[i] * (l[i] * sum[2][i] + r[i] * sum[3][i]);
    }
  });
}

namespace {

// What one pixel adds where: to `place` and beside it, and to the row below too unless that is another thread's.
struct Share {
  index_t source, place;
  scalar upper[2], lower[2];
  bool both;
};

struct Target {
  scalar* at;
  index_t channel, row, beside;
};

// One pixel's channels, which lie together.
inline void add_pixel(const scalar* own, const Share& share, const Target& to, index_t channels) {
  for (index_t k = 0; k < 1 + share.both; ++k) {
    const scalar left = k ? share.lower[0] : share.upper[0], right = k ? share.lower[1] : share.upper[1];
    scalar* target = to.at + share.place + k * to.row;
    scalar* beside = target + to.beside;
    index_t c = 0;
    for (; c + kLanes <= channels; c += kLanes) {
      const vec value = load(own + share.source + c);
      store(target + c, load(target + c) + left * value);
      store(beside + c, load(beside + c) + right * value);
    }
    for (; c < channels; ++c) {
      target[c] += left * own[share.source + c];
      beside[c] += right * own[share.source + c];
    }
  }
}

// kPlanes of the pixels' channels: additions to one place wait for each other, those to several planes and two rows do
// not.
template <int kPlanes>
inline void add_planes(const scalar* own, index_t channel, const Share* shares, index_t count, Target to) {
  for (index_t i = 0; i < count; ++i) {
    const Share& share = shares[i];
    for (index_t c = 0; c < kPlanes; ++c) {
      const scalar value = own[share.source + c * channel];
      scalar* target = to.at + share.place + c * to.channel;
      target[0] += share.upper[0] * value;
      target[to.beside] += share.upper[1] * value;
      if (!share.both) continue;
      target[to.row] += share.lower[0] * value;
      target[to.row + to.beside] += share.lower[1] * value;
    }
  }
}

constexpr decltype(&add_planes<1>) kAddPlanes[] = {add_planes<1>, add_planes<2>, add_planes<3>, add_planes<4>};

}  // namespace

// The adjoint of bilinear_gather: out(p + flow(p)) += image(p), by the same weights. Every thread fills a band of out's
// rows and reads all pixels for it, so that the order of a sum does not depend on the number of threads.
FFPLUG_EXPORT void bilinear_scatter(const scalar* image, const scalar* flow, scalar* out, index_t sample,
                                    index_t channel, index_t row_stride, index_t column, index_t out_sample,
                                    index_t out_channel, index_t out_row, index_t out_column, index_t count,
                                    index_t channels, index_t height, index_t width, index_t border, index_t last) {
  const index_t plane = height * width, beside = width > 1 ? out_column : 0;
  const index_t bands = std::max<index_t>(1, std::min<index_t>(height, omp_get_max_threads()));
#pragma omp parallel for
  for (index_t task = 0; task < count * bands; ++task) {
    const index_t n = task / bands, band = task % bands;
    const index_t begin = height * band / bands, end = height * (band + 1) / bands;
    const scalar* from = image + n * sample;
    scalar* to = out + n * out_sample;
    if (out_channel == 1 && out_row == width * channels)
      std::fill(to + begin * out_row, to + end * out_row, scalar(0));
    else
      for (index_t c = 0; c < channels; ++c)
        std::fill(to + c * out_channel + begin * out_row, to + c * out_channel + end * out_row, scalar(0));
    Taps taps;
    Share shares[kChunk];
    for (index_t y = 0; y < height; ++y)
      for (index_t x = 0; x < width; x += kChunk) {
        const index_t pixels = std::min(kChunk, width - x);
        find_taps<false>(flow + n * 2 * plane, plane, y, x, pixels, height, width, bool(border), taps);
        const scalar* own = from + y * row_stride + x * column;
        index_t hits = 0;
        for (index_t i = 0; i < pixels; ++i) {
          const index_t row = taps.y[i];
          const bool first = row >= begin && row < end && taps.upper[i] != 0;
          const bool second = row + 1 >= begin && row + 1 < end && taps.lower[i] != 0;
          Share& share = shares[hits];
          share.source = i * column;
          share.place = (first ? row : row + 1) * out_row + taps.x[i] * out_column;
          const scalar top = first ? taps.upper[i] : taps.lower[i];
          share.upper[0] = top * taps.left[i];
          share.upper[1] = top * taps.right[i];
          share.lower[0] = taps.lower[i] * taps.left[i];
          share.lower[1] = taps.lower[i] * taps.right[i];
          share.both = first && second;
          hits += (first || second) && (taps.left[i] != 0 || taps.right[i] != 0);
        }
        if (last)
          for (index_t i = 0; i < hits; ++i) add_pixel(own, shares[i], {to, 1, out_row, beside}, channels);
        else
          for (index_t c = 0; c < channels; c += 4)
            kAddPlanes[std::min<index_t>(channels - c, 4) - 1](own + c * channel, channel, shares, hits,
                                                               {to + c * out_channel, out_channel, out_row, beside});
      }
  }
}

namespace {

// The moved cells of one sample, sorted into buckets around the whole positions, rows 0..height, columns 0..width.
struct Buckets {
  index_t rows, columns;
  std::vector<index_t> start;           // of each bucket in `cell`
  std::vector<int32_t> cell;            // source cells, ascending in a bucket
  std::vector<int32_t> left, right;     // nearest column with a cell in it, from each column on, -1 and columns if none
};

// A bucket at distance k from a whole position holds only points farther than k - kReach; a little above one half, for
// positions that rounding moved into the next bucket.
constexpr double kReach = 0.501;

inline bool moved(const scalar* flow, index_t plane, index_t height, index_t width, index_t i, float& x, float& y) {
  x = float(i % width) + float(flow[i]);
  y = float(i / width) + float(flow[plane + i]);
  return x > 0 && x < float(width) && y > 0 && y < float(height);
}

Buckets sort_moved(const scalar* flow, index_t height, index_t width, std::vector<float>& xs, std::vector<float>& ys) {
  Buckets b{height + 1, width + 1};
  const index_t plane = height * width, size = b.rows * b.columns;
  std::vector<int32_t> key(plane);
  b.start.assign(size + 1, 0);
  for (index_t i = 0; i < plane; ++i) {
    key[i] = -1;
    if (!moved(flow, plane, height, width, i, xs[i], ys[i])) continue;
    key[i] = int32_t(ys[i] + 0.5f) * int32_t(b.columns) + int32_t(xs[i] + 0.5f);
    ++b.start[key[i] + 1];
  }
  for (index_t k = 0; k < size; ++k) b.start[k + 1] += b.start[k];
  b.cell.resize(b.start[size]);
  std::vector<index_t> next(b.start.begin(), b.start.end() - 1);
  for (index_t i = 0; i < plane; ++i)
    if (key[i] >= 0) b.cell[next[key[i]]++] = int32_t(i);
  b.left.resize(size);
  b.right.resize(size);
  for (index_t row = 0; row < b.rows; ++row) {
    const index_t at = row * b.columns;
    int32_t nearest = -1;
    for (index_t k = 0; k < b.columns; ++k)
      b.left[at + k] = nearest = b.start[at + k + 1] > b.start[at + k] ? int32_t(k) : nearest;
    nearest = int32_t(b.columns);
    for (index_t k = b.columns - 1; k >= 0; --k)
      b.right[at + k] = nearest = b.start[at + k + 1] > b.start[at + k] ? int32_t(k) : nearest;
  }
  return b;
}

}  // namespace

// Every cell of out N x 2 x h x w takes the flow of the nearest moved cell; among equals that of the lowest index.
// Positions and differences are float and their squares double, which are exact: all backends decide alike.
FFPLUG_EXPORT void forward_warp_flow(const scalar* flow, scalar* out, index_t count, index_t height, index_t width) {
  const index_t plane = height * width;
  std::vector<float> xs(plane), ys(plane);
  for (index_t n = 0; n < count; ++n) {
    const scalar* own = flow + n * 2 * plane;
    scalar* to = out + n * 2 * plane;
    const Buckets b = sort_moved(own, height, width, xs, ys);
    if (b.cell.empty()) {
      std::fill(to, to + 2 * plane, scalar(0));
      continue;
    }
#pragma omp parallel for schedule(dynamic, 4)
    for (index_t y = 0; y < height; ++y)
      for (index_t x = 0; x < width; ++x) {
        double best = INFINITY;
        int32_t nearest = 0;
        const auto search = [&](index_t row) {
          const index_t at = row * b.columns;
          const double vertical = std::max(0.0, double(std::abs(row - y)) - kReach);
          const auto reachable = [&](index_t k) {
            const double horizontal = std::max(0.0, double(std::abs(k - x)) - kReach);
            return horizontal * horizontal + vertical * vertical <= best;
          };
          const auto visit = [&](index_t k) {
            for (index_t p = b.start[at + k]; p < b.start[at + k + 1]; ++p) {
              const int32_t i = b.cell[p];
              const double dx = float(x) - xs[i], dy = float(y) - ys[i];
              const double distance = dx * dx + dy * dy;
              if (distance < best || (distance == best && i < nearest)) best = distance, nearest = i;
            }
          };
          const auto right = [&](index_t k) { return k < b.columns ? b.right[at + k] : b.columns; };
          const auto left = [&](index_t k) { return k >= 0 ? b.left[at + k] : -1; };
          for (index_t k = right(x); k < b.columns && reachable(k); k = right(k + 1)) visit(k);
          for (index_t k = left(x - 1); k >= 0 && reachable(k); k = left(k - 1)) visit(k);
        };
        for (index_t k = 0; k < b.rows; ++k) {
          const double vertical = std::max(0.0, double(k) - kReach);
          if (vertical * vertical > best) break;
          if (y + k < b.rows) search(y + k);
          if (k && y - k >= 0) search(y - k);
        }
        to[y * width + x] = own[nearest];
        to[plane + y * width + x] = own[plane + nearest];
      }
  }
}
