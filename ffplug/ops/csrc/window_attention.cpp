// Attention of every pixel to a window around it: scores, normalisation and weighted sum in one pass; lanes are pixels
// of a row, so no sum runs across a vector.
#include <limits>
#include <vector>

#include "ffplug.h"

namespace {

constexpr index_t kSpan = 2 * kLanes;  // pixels of a step: two vectors, enough sums in flight for the pipeline
constexpr index_t kBand = 8;           // rows of a task

enum Normalization { kSoftmax, kRelu, kNone };

struct Shape {
  index_t count, height, width, inputs, outputs, radius, dilation, normalization, exclude;
  scalar scale, eps;

  index_t side() const { return 2 * radius + 1; }
  index_t offsets() const { return side() * side(); }
  index_t reach() const { return radius * dilation; }
  index_t plane() const { return height * width; }
  index_t bands() const { return (height + kBand - 1) / kBand; }
};

// Rows of a map in the cache, with zeros around it: every load of a window is whole.
class Stage {
 public:
  Stage(const Shape& s, index_t channels, index_t reach)
      : s_(s),
        channels_(channels),
        reach_(reach),
        pitch_((s.width + kSpan - 1) / kSpan * kSpan + 2 * s.reach()),
        data_((kBand + 2 * reach) * channels * pitch_) {}

  // Rows top - reach .. top + kBand + reach of image n.
  void fill(const scalar* map, index_t n, index_t top) {
    top_ = top;
    for (index_t i = 0; i < kBand + 2 * reach_; ++i) {
      const index_t y = top - reach_ + i;
      for (index_t c = 0; c < channels_; ++c) {
        scalar* to = data_.data() + (i * channels_ + c) * pitch_ + s_.reach();
        if (y < 0 || y >= s_.height)
          std::memset(to, 0, s_.width * sizeof(scalar));
        else
          std::memcpy(to, map + ((n * channels_ + c) * s_.height + y) * s_.width, s_.width * sizeof(scalar));
      }
    }
  }
  const scalar* at(index_t c, index_t y, index_t x) const {
    return data_.data() + ((y - top_ + reach_) * channels_ + c) * pitch_ + s_.reach() + x;
  }
  index_t pitch() const { return pitch_; }
  index_t channels() const { return channels_; }

 private:
  Shape s_;
  index_t channels_, reach_, pitch_, top_ = 0;
  std::vector<scalar> data_;
};

// to[kCount][2] = sum over channels of query times key at kCount neighbouring offsets of a row
template <int kCount>
inline void multiply(const scalar* query, index_t query_pitch, const scalar* key, index_t key_pitch, index_t channels,
                     index_t dilation, vec* to) {
  vec total[kCount][2] = {};
  for (index_t c = 0; c < channels; ++c) {
    const vec left[2] = {load(query + c * query_pitch), load(query + c * query_pitch + kLanes)};
#pragma GCC unroll 8
    for (int o = 0; o < kCount; ++o)
      for (int v = 0; v < 2; ++v) total[o][v] += left[v] * load(key + c * key_pitch + o * dilation + v * kLanes);
  }
  for (int o = 0; o < kCount; ++o)
    for (int v = 0; v < 2; ++v) to[2 * o + v] = total[o][v];
}

// to[offset][2]: products of `query` at a span of pixels with `key` in their windows.
void products(const Stage& query, const Stage& key, const Shape& s, index_t y, index_t x, vec* to) {
  for (index_t i = 0; i < s.side(); ++i)
    for (index_t j = 0; j < s.side();) {
      const index_t count = std::min<index_t>(s.side() - j, 7);
      const scalar* from = key.at(0, y + (i - s.radius) * s.dilation, x + (j - s.radius) * s.dilation);
      const auto run = [&](auto kernel) {
        kernel(query.at(0, y, x), query.pitch(), from, key.pitch(), query.channels(), s.dilation,
               to + 2 * (i * s.side() + j));
      };
      switch (count) {
        case 1: run(multiply<1>); break;
        case 2: run(multiply<2>); break;
        case 3: run(multiply<3>); break;
        case 4: run(multiply<4>); break;
        case 5: run(multiply<5>); break;
        case 6: run(multiply<6>); break;
        default: run(multiply<7>);
      }
      j += count;
    }
}

template <int kChannels>
inline void combine_channels(const vec* weight, const Stage& map, const Shape& s, index_t c, index_t y, index_t x,
                             index_t lanes, scalar* to) {
  vec total[kChannels][2] = {};
  for (index_t i = 0; i < s.side(); ++i) {
    const scalar* from = map.at(c, y + (i - s.radius) * s.dilation, x - s.reach());
    for (index_t j = 0; j < s.side(); ++j) {
      const vec* w = weight + 2 * (i * s.side() + j);
#pragma GCC unroll 4
      for (int k = 0; k < kChannels; ++k)
        for (int v = 0; v < 2; ++v)
          total[k][v] += w[v] * load(from + k * map.pitch() + j * s.dilation + v * kLanes);
    }
  }
  for (int k = 0; k < kChannels; ++k) {
    scalar* at = to + k * s.plane();
    if (lanes == kSpan) {
      store(at, total[k][0]);
      store(at + kLanes, total[k][1]);
    } else {
      scalar part[kSpan];
      store(part, total[k][0]);
      store(part + kLanes, total[k][1]);
      std::memcpy(at, part, lanes * sizeof(scalar));
    }
  }
}

// Row y of a result N x C x H x W, from x on: the map's windows weighted by weight[offset][2].
void combine(const vec* weight, const Stage& map, const Shape& s, index_t n, index_t y, index_t x, scalar* result) {
  const index_t lanes = std::min(kSpan, s.width - x), channels = map.channels();
  scalar* to = result + (n * channels * s.height + y) * s.width + x;
  index_t c = 0;
  for (; c + 4 <= channels; c += 4) combine_channels<4>(weight, map, s, c, y, x, lanes, to + c * s.plane());
  for (; c < channels; ++c) combine_channels<1>(weight, map, s, c, y, x, lanes, to + c * s.plane());
}

// Products -> weights, in place; what the gradient needs besides: total[2], the sum under the weights.
void normalize(vec* score, const Shape& s, const scalar* edge, index_t y, index_t x, vec* total) {
  const index_t offsets = s.offsets();
  for (index_t o = 0; o < 2 * offsets; ++o) score[o] *= s.scale;
  if (s.normalization == kNone) return;
  if (s.normalization == kSoftmax && s.exclude) {
    const vec never = broadcast(-std::numeric_limits<scalar>::infinity());
    for (index_t i = 0; i < s.side(); ++i) {
      const index_t row = y + (i - s.radius) * s.dilation;
      for (index_t j = 0; j < s.side(); ++j)
        for (index_t v = 0; v < 2; ++v) {
          vec& at = score[2 * (i * s.side() + j) + v];
          at = row < 0 || row >= s.height ? never : at + load(edge + x + j * s.dilation + v * kLanes);
        }
    }
  }
  for (index_t v = 0; v < 2; ++v) {
    vec sum = {};
    if (s.normalization == kSoftmax) {
      vec highest = score[v];
      for (index_t o = 1; o < offsets; ++o) highest = vmax(highest, score[2 * o + v]);
      // Lanes beyond the row have no neighbour at all: any finite number will do.
      highest = vmax(highest, broadcast(std::numeric_limits<scalar>::lowest()));
      for (index_t o = 0; o < offsets; ++o) sum += score[2 * o + v] = vexp(score[2 * o + v] - highest);
    } else {
      for (index_t o = 0; o < offsets; ++o) sum += score[2 * o + v] = vmax(score[2 * o + v], vec{});
    }
    total[v] = sum;
    const vec inverse = scalar(1) / (s.normalization == kRelu ? vmax(sum, broadcast(s.eps)) : sum);
    for (index_t o = 0; o < offsets; ++o) score[2 * o + v] *= inverse;
  }
}

// slope[offset][2]: gradient of the weights -> that of the products, in place.
void normalize_backward(const vec* weight, vec* slope, const vec* total, const Shape& s) {
  const index_t offsets = s.offsets();
  const vec zero = {};
  for (index_t v = 0; v < 2 && s.normalization != kNone; ++v) {
    vec mean = {};
    for (index_t o = 0; o < offsets; ++o) mean += weight[2 * o + v] * slope[2 * o + v];
    if (s.normalization == kSoftmax) {
      for (index_t o = 0; o < offsets; ++o) slope[2 * o + v] = weight[2 * o + v] * (slope[2 * o + v] - mean);
    } else {
      const vec eps = broadcast(s.eps), inverse = scalar(1) / vmax(total[v], eps);
      mean = total[v] >= eps ? mean : zero;
      for (index_t o = 0; o < offsets; ++o)
        slope[2 * o + v] = weight[2 * o + v] > zero ? (slope[2 * o + v] - mean) * inverse : zero;
    }
  }
  for (index_t o = 0; o < 2 * offsets; ++o) slope[o] *= s.scale;
}

// What to add to the scores of columns -reach, ..: minus infinity outside the map.
std::vector<scalar> edges(const Shape& s) {
  std::vector<scalar> edge(s.width + kSpan + 2 * s.reach(), -std::numeric_limits<scalar>::infinity());
  std::fill_n(edge.begin() + s.reach(), s.width, scalar(0));
  return edge;
}

void keep(const vec* values, const Shape& s, index_t n, index_t y, index_t x, scalar* map) {
  const index_t lanes = std::min(kSpan, s.width - x);
  for (index_t o = 0; o < s.offsets(); ++o)
    std::memcpy(map + ((n * s.offsets() + o) * s.height + y) * s.width + x, values + 2 * o, lanes * sizeof(scalar));
}

}  // namespace

// query, key N x inputs x H x W, value and out N x outputs x H x W
FFPLUG_EXPORT void window_attention(const scalar* query, const scalar* key, const scalar* value, scalar* out,
                                    index_t count, index_t height, index_t width, index_t inputs, index_t outputs,
                                    index_t radius, index_t dilation, index_t normalization, index_t exclude,
                                    double scale, double eps) {
  const Shape s{count, height, width, inputs, outputs, radius, dilation, normalization, exclude, scalar(scale),
                scalar(eps)};
  const std::vector<scalar> edge = edges(s);
#pragma omp parallel
  {
    Stage queries(s, inputs, 0), keys(s, inputs, s.reach()), values(s, outputs, s.reach());
    std::vector<vec> weight(2 * s.offsets());
#pragma omp for
    for (index_t task = 0; task < count * s.bands(); ++task) {
      const index_t n = task / s.bands(), top = task % s.bands() * kBand;
      queries.fill(query, n, top);
      keys.fill(key, n, top);
      values.fill(value, n, top);
      for (index_t y = top; y < std::min(top + kBand, height); ++y)
        for (index_t x = 0; x < width; x += kSpan) {
          vec total[2];
          products(queries, keys, s, y, x, weight.data());
          normalize(weight.data(), s, edge.data(), y, x, total);
          combine(weight.data(), values, s, n, y, x, out);
        }
    }
  }
}

// Gradients; weights and slopes N x offsets x H x W are scratch. grad_query may be null.
FFPLUG_EXPORT void window_attention_backward(const scalar* grad, const scalar* query, const scalar* key,
                                             const scalar* value, scalar* weights, scalar* slopes, scalar* grad_query,
                                             scalar* grad_key, scalar* grad_value, index_t count, index_t height,
                                             index_t width, index_t inputs, index_t outputs, index_t radius,
                                             index_t dilation, index_t normalization, index_t exclude, double scale,
                                             double eps) {
  const Shape s{count, height, width, inputs, outputs, radius, dilation, normalization, exclude, scalar(scale),
                scalar(eps)};
  const std::vector<scalar> edge = edges(s);
#pragma omp parallel
  {
    std::vector<vec> weight(2 * s.offsets()), slope(2 * s.offsets());
    {
      Stage grads(s, outputs, 0), queries(s, inputs, 0);
      Stage keys(s, inputs, s.reach()), values(s, outputs, s.reach());
#pragma omp for
      for (index_t task = 0; task < count * s.bands(); ++task) {
        const index_t n = task / s.bands(), top = task % s.bands() * kBand;
        grads.fill(grad, n, top);
        queries.fill(query, n, top);
        keys.fill(key, n, top);
        values.fill(value, n, top);
        for (index_t y = top; y < std::min(top + kBand, height); ++y)
          for (index_t x = 0; x < width; x += kSpan) {
            vec total[2];
            products(queries, keys, s, y, x, weight.data());
            normalize(weight.data(), s, edge.data(), y, x, total);
            products(grads, values, s, y, x, slope.data());
            normalize_backward(weight.data(), slope.data(), total, s);
            keep(weight.data(), s, n, y, x, weights);
            keep(slope.data(), s, n, y, x, slopes);
            if (grad_query) combine(slope.data(), keys, s, n, y, x, grad_query);
          }
      }
    }
    // A key or value collects from the pixels whose windows hold it, so that no two threads write to one place.
    const auto collect = [&](const scalar* shares, const scalar* map, index_t channels, scalar* result) {
      Stage share(s, s.offsets(), s.reach()), maps(s, channels, s.reach());
#pragma omp for
      for (index_t task = 0; task < count * s.bands(); ++task) {
        const index_t n = task / s.bands(), top = task % s.bands() * kBand;
        share.fill(shares, n, top);
        maps.fill(map, n, top);
        for (index_t y = top; y < std::min(top + kBand, height); ++y)
          for (index_t x = 0; x < width; x += kSpan) {
            for (index_t i = 0; i < s.side(); ++i)
              for (index_t j = 0; j < s.side(); ++j) {
                const index_t o = i * s.side() + j;
                const scalar* from = share.at(s.offsets() - 1 - o, y + (i - radius) * dilation, x + (j - radius) * dilation);
                weight[2 * o] = load(from);
                weight[2 * o + 1] = load(from + kLanes);
              }
            combine(weight.data(), maps, s, n, y, x, result);
          }
      }
    };
    if (grad_key) collect(slopes, query, inputs, grad_key);
    if (grad_value) collect(weights, grad, outputs, grad_value);
  }
}
