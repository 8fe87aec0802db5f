// Features times the sigmoid of a gate, with a ReLU if asked for, and the gradient. A pixel's channels lie together,
// the gate after them. A thread has whole pixels, so that sums keep their order.
#include "ffplug.h"

static inline scalar sigmoid(scalar z) { return scalar(1) / (scalar(1) + std::exp(-z)); }

// x pixels x (channels + 1) -> out pixels x channels
FFPLUG_EXPORT void apply_gate(const scalar* x, scalar* out, index_t pixels, index_t channels, index_t relu) {
#pragma omp parallel for
  for (index_t pixel = 0; pixel < pixels; ++pixel) {
    const scalar* from = x + pixel * (channels + 1);
    scalar* to = out + pixel * channels;
    const vec open = broadcast(sigmoid(from[channels])), floor = broadcast(relu ? 0 : -INFINITY);
    index_t c = 0;
    for (; c + kLanes <= channels; c += kLanes) store(to + c, vmax(load(from + c) * open, floor));
    if (c < channels) store_part(to + c, vmax(load_part(from + c, channels - c) * open, floor), channels - c);
  }
}

FFPLUG_EXPORT void apply_gate_backward(const scalar* grad, const scalar* x, scalar* grad_x, index_t pixels,
                                       index_t channels, index_t relu) {
#pragma omp parallel for
  for (index_t pixel = 0; pixel < pixels; ++pixel) {
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
}
