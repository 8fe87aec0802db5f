// Instance normalisation of channels-last maps. One block takes 32 channels of a sample; its 8 rows of threads share
// the pixels, so that a warp reads 32 neighbouring channels.
#include "ffplug_cuda.h"

constexpr int kRows = 8;

// Sum of one value of each of the block's rows, for every channel; all threads get it.
__device__ inline scalar sum_rows(scalar value, scalar (*shared)[32]) {
  __syncthreads();
  shared[threadIdx.y][threadIdx.x] = value;
  __syncthreads();
  scalar total = 0;
  for (int row = 0; row < kRows; ++row) total += shared[row][threadIdx.x];
  return total;
}

FFPLUG_KERNEL instance_norm_moments(const scalar* x, scalar* moments, int64_t pixels, int64_t channels, double eps) {
  __shared__ scalar shared[kRows][32];
  const index_t channel = static_cast<index_t>(blockIdx.x) * 32 + threadIdx.x, n = blockIdx.y;
  const bool live = channel < channels;
  const scalar* own = x + n * pixels * channels + channel;
  scalar sum = 0;
  for (index_t p = threadIdx.y; live && p < pixels; p += kRows) sum += own[p * channels];
  const scalar mean = sum_rows(sum, shared) / pixels;
  scalar square = 0;
  for (index_t p = threadIdx.y; live && p < pixels; p += kRows) {
    const scalar delta = own[p * channels] - mean;
    square += delta * delta;
  }
  const scalar variance = sum_rows(square, shared) / pixels;
  if (live && threadIdx.y == 0) {
    moments[n * 2 * channels + channel] = mean;
    moments[(n * 2 + 1) * channels + channel] = 1 / sqrt(variance + scalar(eps));
  }
}

FFPLUG_KERNEL instance_norm(const scalar* x, const scalar* moments, scalar* y, int64_t count, int64_t pixels,
                            int64_t channels, int64_t relu) {
  const index_t at = global_thread();
  if (at >= count * pixels * channels) return;
  const index_t channel = at % channels, n = at / channels / pixels;
  const scalar value = (x[at] - moments[n * 2 * channels + channel]) * moments[(n * 2 + 1) * channels + channel];
  y[at] = relu && value < 0 ? scalar(0) : value;
}

FFPLUG_KERNEL instance_norm_backward(const scalar* grad, const scalar* x, const scalar* moments, scalar* grad_x,
                                     int64_t pixels, int64_t channels, int64_t relu) {
  __shared__ scalar shared[kRows][32];
  const index_t channel = static_cast<index_t>(blockIdx.x) * 32 + threadIdx.x, n = blockIdx.y;
  const bool live = channel < channels;
  const index_t start = n * pixels * channels + channel;
  const scalar mean = live ? moments[n * 2 * channels + channel] : 0;
  const scalar rstd = live ? moments[(n * 2 + 1) * channels + channel] : 0;
  scalar sum = 0, product = 0;
  for (index_t p = threadIdx.y; live && p < pixels; p += kRows) {
    const scalar z = (x[start + p * channels] - mean) * rstd;
    const scalar g = relu && z <= 0 ? scalar(0) : grad[start + p * channels];
    sum += g;
    product += g * z;
  }
  const scalar mean_sum = sum_rows(sum, shared) / pixels;
  const scalar mean_product = sum_rows(product, shared) / pixels;
  for (index_t p = threadIdx.y; live && p < pixels; p += kRows) {
    const scalar z = (x[start + p * channels] - mean) * rstd;
    const scalar g = relu && z <= 0 ? scalar(0) : grad[start + p * channels];
    grad_x[start + p * channels] = rstd * (g - mean_sum - z * mean_product);
  }
}
