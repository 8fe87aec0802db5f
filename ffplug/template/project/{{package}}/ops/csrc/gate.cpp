// A gate on feature maps: x * sigmoid(logits), and its gradients. A thread has whole cells, so that sums keep their order.
#include "ffplug.h"

static inline scalar sigmoid(scalar z) { return scalar(1) / (scalar(1) + std::exp(-z)); }

// x N x channels x cells, logits N x cells -> out as x
FFPLUG_EXPORT void confidence_gate(const scalar* x, const scalar* logits, scalar* out, index_t count, index_t channels,
                                   index_t cells) {
#pragma omp parallel for
  for (index_t cell = 0; cell < count * cells; ++cell) {
    const index_t first = cell / cells * channels * cells + cell % cells;
    const scalar open = sigmoid(logits[cell]);
    for (index_t c = 0; c < channels; ++c) out[first + c * cells] = x[first + c * cells] * open;
  }
}

FFPLUG_EXPORT void confidence_gate_backward(const scalar* grad, const scalar* x, const scalar* logits, scalar* grad_x,
                                            scalar* grad_logits, index_t count, index_t channels, index_t cells) {
#pragma omp parallel for
  for (index_t cell = 0; cell < count * cells; ++cell) {
    const index_t first = cell / cells * channels * cells + cell % cells;
    const scalar open = sigmoid(logits[cell]);
    scalar sum = 0;
    for (index_t c = 0; c < channels; ++c) {
      const index_t at = first + c * cells;
      grad_x[at] = grad[at] * open;
      sum += grad[at] * x[at];
    }
    grad_logits[cell] = sum * open * (1 - open);
  }
}
