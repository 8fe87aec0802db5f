// Features times the sigmoid of a gate, with a ReLU if asked for, and the gradient; one thread a pixel.
#include "ffplug_cuda.h"

__device__ inline scalar sigmoid(scalar z) { return scalar(1) / (scalar(1) + exp(-z)); }

// x pixels x (channels + 1) -> out pixels x channels
FFPLUG_KERNEL apply_gate(const scalar* x, scalar* out, int64_t pixels, int64_t channels, int64_t relu) {
  const index_t pixel = global_thread();
  if (pixel >= pixels) return;
  const scalar* from = x + pixel * (channels + 1);
  const scalar open = sigmoid(from[channels]);
  for (index_t c = 0; c < channels; ++c) {
    const scalar y = from[c] * open;
    out[pixel * channels + c] = relu && y < 0 ? scalar(0) : y;
  }
}

FFPLUG_KERNEL apply_gate_backward(const scalar* grad, const scalar* x, scalar* grad_x, int64_t pixels, int64_t channels,
                                  int64_t relu) {
  const index_t pixel = global_thread();
  if (pixel >= pixels) return;
  const scalar *above = grad + pixel * channels, *from = x + pixel * (channels + 1);
  scalar* to = grad_x + pixel * (channels + 1);
  const scalar open = sigmoid(from[channels]);
  scalar sum = 0;
  for (index_t c = 0; c < channels; ++c) {
    const scalar kept = relu && !(from[c] > 0) ? scalar(0) : above[c];
    to[c] = kept * open;
    sum += kept * from[c];
  }
  to[channels] = sum * open * (1 - open);
}
