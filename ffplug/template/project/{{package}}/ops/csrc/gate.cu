// A gate on feature maps: x * sigmoid(logits), and its gradients; one thread a cell.
#include "ffplug_cuda.h"

__device__ inline scalar sigmoid(scalar z) { return scalar(1) / (scalar(1) + exp(-z)); }

// x N x channels x cells, logits N x cells -> out as x
FFPLUG_KERNEL confidence_gate(const scalar* x, const scalar* logits, scalar* out, int64_t count, int64_t channels,
                              int64_t cells) {
  const index_t cell = global_thread();
  if (cell >= count * cells) return;
  const index_t first = cell / cells * channels * cells + cell % cells;
  const scalar open = sigmoid(logits[cell]);
  for (index_t c = 0; c < channels; ++c) out[first + c * cells] = x[first + c * cells] * open;
}

FFPLUG_KERNEL confidence_gate_backward(const scalar* grad, const scalar* x, const scalar* logits, scalar* grad_x,
                                       scalar* grad_logits, int64_t count, int64_t channels, int64_t cells) {
  const index_t cell = global_thread();
  if (cell >= count * cells) return;
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
