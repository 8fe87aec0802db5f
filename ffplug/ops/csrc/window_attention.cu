// Attention of every pixel to a window around it: a block 32 pixels of a row; eight threads share a pixel's offsets and
// channels.
#include "ffplug_cuda.h"

constexpr int kPixels = 32, kParts = 8, kOffsets = 81;  // the host sees to windows of at most kOffsets
constexpr int kSoftmax = 0, kRelu = 1;

struct Window {
  index_t height, width, radius, dilation, n, y, x;

  __device__ index_t side() const { return 2 * radius + 1; }
  __device__ index_t row(index_t o) const { return y + (o / side() - radius) * dilation; }
  __device__ index_t column(index_t o) const { return x + (o % side() - radius) * dilation; }
  __device__ bool inside(index_t o) const {
    return row(o) >= 0 && row(o) < height && column(o) >= 0 && column(o) < width;
  }
  __device__ index_t at(index_t c, index_t channels, index_t row, index_t column) const {
    return ((n * channels + c) * height + row) * width + column;
  }
};

__device__ inline Window window_of(index_t height, index_t width, index_t radius, index_t dilation) {
  const index_t spans = (width + kPixels - 1) / kPixels, line = blockIdx.x / spans;
  return {height, width, radius, dilation, line / height, line % height,
          static_cast<index_t>(blockIdx.x % spans) * kPixels + threadIdx.x};
}

// Product of `left` at the pixel with `right` at offset o, zero outside.
__device__ inline scalar product(const scalar* left, const scalar* right, index_t channels, const Window& w, index_t o) {
  scalar sum = 0;
  if (w.inside(o))
    for (index_t c = 0; c < channels; ++c)
      sum += left[w.at(c, channels, w.y, w.x)] * right[w.at(c, channels, w.row(o), w.column(o))];
  return sum;
}

// Sum of weight[o][pixel] times the map at offset o.
__device__ inline scalar combine(const scalar (*weight)[kPixels], const scalar* map, index_t c, index_t channels,
                                 const Window& w) {
  scalar sum = 0;
  for (index_t o = 0; o < w.side() * w.side(); ++o)
    if (w.inside(o)) sum += weight[o][threadIdx.x] * map[w.at(c, channels, w.row(o), w.column(o))];
  return sum;
}

// The block's weights, each by a thread of its own; returns the sum under the pixel's weights.
__device__ inline scalar weigh(const scalar* query, const scalar* key, index_t inputs, const Window& w,
                               index_t normalization, index_t exclude, scalar scale, scalar eps,
                               scalar (*weight)[kPixels]) {
  const index_t offsets = w.side() * w.side();
  const bool live = w.x < w.width, drops = normalization == kSoftmax && exclude;
  for (index_t o = threadIdx.y; o < offsets; o += kParts)
    weight[o][threadIdx.x] = live ? scale * product(query, key, inputs, w, o) : scalar(0);
  __syncthreads();
  scalar highest = 0, sum = 0;
  if (live && normalization == kSoftmax) {
    highest = weight[w.radius * w.side() + w.radius][threadIdx.x];  // its own pixel is inside
    for (index_t o = 0; o < offsets; ++o)
      if (!(drops && !w.inside(o)) && weight[o][threadIdx.x] > highest) highest = weight[o][threadIdx.x];
    for (index_t o = 0; o < offsets; ++o)
      if (!(drops && !w.inside(o))) sum += exp(weight[o][threadIdx.x] - highest);
  } else if (live && normalization == kRelu) {
    for (index_t o = 0; o < offsets; ++o) sum += weight[o][threadIdx.x] > 0 ? weight[o][threadIdx.x] : scalar(0);
  }
  __syncthreads();
  for (index_t o = threadIdx.y; o < offsets; o += kParts) {
    scalar& own = weight[o][threadIdx.x];
    if (!live) continue;
    if (normalization == kSoftmax)
      own = drops && !w.inside(o) ? scalar(0) : exp(own - highest) / sum;
    else if (normalization == kRelu)
      own = own > 0 ? own / (sum > eps ? sum : eps) : scalar(0);
  }
  __syncthreads();
  return sum;
}

FFPLUG_KERNEL window_attention(const scalar* query, const scalar* key, const scalar* value, scalar* out,
                               int64_t height, int64_t width, int64_t inputs, int64_t outputs, int64_t radius,
                               int64_t dilation, int64_t normalization, int64_t exclude, double scale, double eps) {
  __shared__ scalar weight[kOffsets][kPixels];
  const Window w = window_of(height, width, radius, dilation);
  weigh(query, key, inputs, w, normalization, exclude, scalar(scale), scalar(eps), weight);
  if (w.x >= width) return;
  for (index_t c = threadIdx.y; c < outputs; c += kParts)
    out[w.at(c, outputs, w.y, w.x)] = combine(weight, value, c, outputs, w);
}

// Keeps weights and slopes N x offsets x H x W for the gradients of key and value.
FFPLUG_KERNEL window_attention_query_backward(const scalar* grad, const scalar* query, const scalar* key,
                                              const scalar* value, scalar* weights, scalar* slopes, scalar* grad_query,
                                              int64_t height, int64_t width, int64_t inputs, int64_t outputs,
                                              int64_t radius, int64_t dilation, int64_t normalization, int64_t exclude,
                                              double scale, double eps) {
  __shared__ scalar weight[kOffsets][kPixels];
  __shared__ scalar slope[kOffsets][kPixels];
  const Window w = window_of(height, width, radius, dilation);
  const index_t offsets = w.side() * w.side();
  const int pixel = threadIdx.x;
  const bool live = w.x < width;
  const scalar total =
      weigh(query, key, inputs, w, normalization, exclude, scalar(scale), scalar(eps), weight);
  for (index_t o = threadIdx.y; o < offsets; o += kParts)
    slope[o][pixel] = live ? product(grad, value, outputs, w, o) : scalar(0);
  __syncthreads();
  scalar mean = 0;
  for (index_t o = 0; live && o < offsets; ++o) mean += weight[o][pixel] * slope[o][pixel];
  __syncthreads();
  for (index_t o = threadIdx.y; live && o < offsets; o += kParts) {
    scalar own = slope[o][pixel];
    if (normalization == kSoftmax)
      own = weight[o][pixel] * (own - mean);
    else if (normalization == kRelu)
      own = weight[o][pixel] > 0 ? (own - (total >= scalar(eps) ? mean : scalar(0))) / (total > scalar(eps) ? total : scalar(eps))
                                 : scalar(0);
    slope[o][pixel] = own * scalar(scale);
    weights[w.at(o, offsets, w.y, w.x)] = weight[o][pixel];
    slopes[w.at(o, offsets, w.y, w.x)] = slope[o][pixel];
  }
  __syncthreads();
  if (!live || !grad_query) return;
  for (index_t c = threadIdx.y; c < inputs; c += kParts)
    grad_query[w.at(c, inputs, w.y, w.x)] = combine(slope, key, c, inputs, w);
}

// Each element of a key or value collects from the pixels whose windows hold it: shares N x offsets x H x W, map and
// result N x channels x H x W.
FFPLUG_KERNEL window_attention_collect(const scalar* shares, const scalar* map, scalar* result, int64_t height,
                                       int64_t width, int64_t channels, int64_t radius, int64_t dilation) {
  const Window w = window_of(height, width, radius, dilation);
  const index_t offsets = w.side() * w.side();
  if (w.x >= width) return;
  for (index_t c = threadIdx.y; c < channels; c += kParts) {
    scalar sum = 0;
    for (index_t o = 0; o < offsets; ++o)
      if (w.inside(o))
        sum += shares[w.at(offsets - 1 - o, offsets, w.row(o), w.column(o))] *
               map[w.at(c, channels, w.row(o), w.column(o))];
    result[w.at(c, channels, w.y, w.x)] = sum;
  }
}
