// Depth-wise convolution, channels last: one thread an output, neighbouring threads neighbouring channels.
#include "ffplug_cuda.h"

__device__ inline scalar gelu_of(scalar x) { return x * scalar(0.5) * erfc(-x * scalar(0.70710678118654752440)); }

FFPLUG_KERNEL depthwise_convolution(const scalar* x, const scalar* weight, const scalar* bias, scalar* y,
                                    int64_t count, int64_t height, int64_t width, int64_t channels, int64_t size,
                                    int64_t residual, int64_t gelu) {
  const index_t thread = global_thread(), half = size / 2;
  if (thread >= count * height * width * channels) return;
  const index_t c = thread % channels, column = thread / channels % width;
  const index_t row = thread / channels / width % height, n = thread / channels / width / height;
  scalar sum = bias ? bias[c] : scalar(0);
  for (index_t ky = 0; ky < size; ++ky) {
    const index_t from_y = row + ky - half;
    if (from_y < 0 || from_y >= height) continue;
    for (index_t kx = 0; kx < size; ++kx) {
      const index_t from_x = column + kx - half;
      if (from_x < 0 || from_x >= width) continue;
      sum += x[((n * height + from_y) * width + from_x) * channels + c] * weight[(c * size + ky) * size + kx];
    }
  }
  if (residual) sum += x[thread];
  y[thread] = gelu ? gelu_of(sum) : sum;
}

FFPLUG_KERNEL add_gelu(const scalar* a, const scalar* b, scalar* y, int64_t size) {
  const index_t thread = global_thread();
  if (thread < size) y[thread] = gelu_of(a[thread] + b[thread]);
}
