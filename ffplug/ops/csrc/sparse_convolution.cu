// Convolution at the pixels of a mask: a block an 8x8 tile and 64 output channels, tiles without a set pixel end at once.
#include "ffplug_cuda.h"

constexpr int kSide = 8, kPixels = kSide * kSide, kOutputs = 64, kDepth = 8, kThreads = 256, kBuffers = 6;
constexpr int kPart = 4;  // pixels and output channels of a thread

// x0 .. x5: N x H x W x c0 .. c5, the last ones null; weight taps x taps x inputs x outputs; slope and bias may be null.
FFPLUG_KERNEL sparse_convolution(const scalar* x0, const scalar* x1, const scalar* x2, const scalar* x3,
                                 const scalar* x4, const scalar* x5, const unsigned char* mask, const scalar* weight,
                                 const scalar* bias, const scalar* slope, const scalar* outside, scalar* y, int64_t c0,
                                 int64_t c1, int64_t c2, int64_t c3, int64_t c4, int64_t c5, int64_t height,
                                 int64_t width, int64_t outputs, int64_t taps) {
  __shared__ scalar inputs[kDepth][kPixels + 1];
  __shared__ scalar weights[kDepth][kOutputs];
  const scalar* const buffers[kBuffers] = {x0, x1, x2, x3, x4, x5};
  const index_t channels[kBuffers] = {c0, c1, c2, c3, c4, c5};
  const int thread = threadIdx.x, first_pixel = thread / (kOutputs / kPart) * kPart,
            first_output = thread % (kOutputs / kPart) * kPart;
  const index_t tiles_x = (width + kSide - 1) / kSide, tiles_y = (height + kSide - 1) / kSide, tile = blockIdx.x;
  const index_t n = tile / (tiles_x * tiles_y), top = tile / tiles_x % tiles_y * kSide, left = tile % tiles_x * kSide;
  const index_t start = static_cast<index_t>(blockIdx.y) * kOutputs;

  bool active[kPart];
  int any = 0;
  for (int i = 0; i < kPart; ++i) {
    const index_t row = top + (first_pixel + i) / kSide, column = left + (first_pixel + i) % kSide;
    active[i] = row < height && column < width && mask[(n * height + row) * width + column];
    any |= active[i];
  }
  scalar total[kPart][kPart] = {};
  if (__syncthreads_or(any)) {
    for (index_t t = 0; t < taps * taps; ++t)
      for (int b = 0; b < kBuffers; ++b)
        for (index_t from = 0; from < channels[b]; from += kDepth) {
          for (int e = thread; e < kPixels * kDepth; e += kThreads) {
            const int pixel = e / kDepth;
            const index_t row = top + pixel / kSide + t / taps - taps / 2, c = from + e % kDepth;
            const index_t column = left + pixel % kSide + t % taps - taps / 2;
            const bool inside = row >= 0 && row < height && column >= 0 && column < width && c < channels[b];
            inputs[e % kDepth][pixel] =
                inside ? buffers[b][((n * height + row) * width + column) * channels[b] + c] : scalar(0);
          }
          for (int e = thread; e < kOutputs * kDepth; e += kThreads) {
            const index_t o = start + e % kOutputs, c = from + e / kOutputs;
            weights[e / kOutputs][e % kOutputs] = o < outputs && c < channels[b] ? weight[c * outputs + o] : scalar(0);
          }
          __syncthreads();
          for (int k = 0; k < kDepth; ++k)
            for (int i = 0; i < kPart; ++i)
              for (int j = 0; j < kPart; ++j)
                total[i][j] += inputs[k][first_pixel + i] * weights[k][first_output + j];
          __syncthreads();
          if (from + kDepth >= channels[b]) weight += channels[b] * outputs;
        }
  }
  for (int i = 0; i < kPart; ++i) {
    const index_t row = top + (first_pixel + i) / kSide, column = left + (first_pixel + i) % kSide;
    if (row >= height || column >= width) continue;
    for (int j = 0; j < kPart; ++j) {
      const index_t o = start + first_output + j;
      if (o >= outputs) continue;
      scalar value = total[i][j] + (bias ? bias[o] : scalar(0));
      if (slope && value < 0) value *= slope[o];
      y[((n * height + row) * width + column) * outputs + o] = active[i] ? value : outside[o];
    }
  }
}
