// Convex upsampling: one thread a fine pixel (forward) or a fine position of a cell (gradient of the logits).
#include "ffplug_cuda.h"


__device__ inline scalar neighbour(const scalar* flow, index_t n, index_t c, index_t y, index_t x, index_t height,
                                   index_t width) {
  if (y < 0 || y >= height || x < 0 || x >= width) return 0;
  return flow[((n * 2 + c) * height + y) * width + x];
}

// weight[k] of fine position q of a cell whose logits start at `own`.
__device__ inline void softmax(const scalar* own, index_t q, index_t fine, scalar* weight) {
  scalar highest = own[q], total = 0;
  for (int k = 0; k < 9; ++k) {
    weight[k] = own[k * fine + q];
    if (weight[k] > highest) highest = weight[k];
  }
  for (int k = 0; k < 9; ++k) total += weight[k] = exp(weight[k] - highest);
  for (int k = 0; k < 9; ++k) weight[k] /= total;
}

FFPLUG_KERNEL convex_upsample(const scalar* flow, const scalar* logits, scalar* out, int64_t count, int64_t height,
                              int64_t width, int64_t factor) {
  const index_t thread = global_thread(), fine = factor * factor;
  if (thread >= count * height * width * fine) return;
  // Neighbouring threads read neighbouring logits: the fine position runs fastest.
  const index_t q = thread % fine, cell = thread / fine;
  const index_t x = cell % width, y = cell / width % height, n = cell / width / height;
  scalar weight[9], sum[2] = {0, 0};
  softmax(logits + cell * 9 * fine, q, fine, weight);
  for (int k = 0; k < 9; ++k)
    for (int c = 0; c < 2; ++c)
      sum[c] += weight[k] * neighbour(flow, n, c, y + k / 3 - 1, x + k % 3 - 1, height, width);
  const index_t row = y * factor + q / factor, column = x * factor + q % factor;
  for (int c = 0; c < 2; ++c)
    out[((n * 2 + c) * height * factor + row) * width * factor + column] = factor * sum[c];
}

FFPLUG_KERNEL convex_upsample_logits_backward(const scalar* grad, const scalar* flow, const scalar* logits,
                                              scalar* grad_logits, int64_t count, int64_t height, int64_t width,
                                              int64_t factor) {
  const index_t thread = global_thread(), fine = factor * factor;
  if (thread >= count * height * width * fine) return;
  const index_t q = thread % fine, cell = thread / fine;
  const index_t x = cell % width, y = cell / width % height, n = cell / width / height;
  const index_t row = y * factor + q / factor, column = x * factor + q % factor;
  scalar weight[9], slope[9], mean = 0;
  softmax(logits + cell * 9 * fine, q, fine, weight);
  for (int k = 0; k < 9; ++k) {
    slope[k] = 0;
    for (int c = 0; c < 2; ++c)
      slope[k] += grad[((n * 2 + c) * height * factor + row) * width * factor + column] * factor *
                  neighbour(flow, n, c, y + k / 3 - 1, x + k % 3 - 1, height, width);
    mean += weight[k] * slope[k];
  }
  for (int k = 0; k < 9; ++k) grad_logits[(cell * 9 + k) * fine + q] = weight[k] * (slope[k] - mean);
}

// One warp a cell: it collects what the fine pixels of its nine neighbours owe it, so no atomics are needed.
FFPLUG_KERNEL convex_upsample_flow_backward(const scalar* grad, const scalar* logits, scalar* grad_flow, int64_t count,
                                            int64_t height, int64_t width, int64_t factor) {
  const index_t cell = global_thread() / 32, lane = threadIdx.x % 32, fine = factor * factor;
  if (cell >= count * height * width) return;
  const index_t x = cell % width, y = cell / width % height, n = cell / width / height;
  scalar sum[2] = {0, 0};
  for (int k = 0; k < 9; ++k) {
    const index_t from_y = y - (k / 3 - 1), from_x = x - (k % 3 - 1);
    if (from_y < 0 || from_y >= height || from_x < 0 || from_x >= width) continue;
    const scalar* own = logits + ((n * height + from_y) * width + from_x) * 9 * fine;
    for (index_t q = lane; q < fine; q += 32) {
      scalar weight[9];
      softmax(own, q, fine, weight);
      const index_t row = from_y * factor + q / factor, column = from_x * factor + q % factor;
      for (int c = 0; c < 2; ++c)
        sum[c] += weight[k] * grad[((n * 2 + c) * height * factor + row) * width * factor + column];
    }
  }
  for (int c = 0; c < 2; ++c) {
    const scalar total = warp_sum(sum[c]);
    if (lane == 0) grad_flow[((n * 2 + c) * height + y) * width + x] = factor * total;
  }
}
