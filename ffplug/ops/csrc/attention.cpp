// Softmax over rows, in place of what a row held: three passes while it lies in the cache.
#include "ffplug.h"

// logits rows x size -> weights rows x size
FFPLUG_EXPORT void softmax_rows(const scalar* logits, scalar* weights, index_t rows, index_t size) {
#pragma omp parallel for
  for (index_t row = 0; row < rows; ++row) {
    const scalar* from = logits + row * size;
    scalar* to = weights + row * size;
    const index_t whole = size - size % kLanes;
    scalar highest = from[0];
    vec peak = broadcast(highest);
    for (index_t i = 0; i < whole; i += kLanes) peak = vmax(peak, load(from + i));
    for (index_t lane = 0; lane < kLanes; ++lane) highest = std::max(highest, peak[lane]);
    for (index_t i = whole; i < size; ++i) highest = std::max(highest, from[i]);
    vec sum = {};
    for (index_t i = 0; i < whole; i += kLanes) {
      const vec value = vexp(load(from + i) - highest);
      store(to + i, value);
      sum += value;
    }
    scalar total = reduce(sum);
    for (index_t i = whole; i < size; ++i) total += to[i] = std::exp(from[i] - highest);
    const scalar scale = 1 / total;
    for (index_t i = 0; i < whole; i += kLanes) store(to + i, load(to + i) * scale);
    for (index_t i = whole; i < size; ++i) to[i] *= scale;
  }
}
