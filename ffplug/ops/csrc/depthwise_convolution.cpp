// Depth-wise convolution with large kernels, channels last: bias, residual and GELU in the same pass.
//
// A vector holds neighbouring channels; a run of outputs in a row keeps its sums in registers while the kernel passes
// over it, so every load feeds a multiplication.
#include "ffplug.h"

namespace {

constexpr index_t kRun = 12;  // outputs in a row

// sums[r] = sum over the kernel of weight * input, for kRun outputs beside each other and one vector of channels.
inline void run(const scalar* input, const scalar* weight, index_t row_pitch, index_t size, vec* sums) {
  vec total[kRun] = {};
  for (index_t ky = 0; ky < size; ++ky)
    for (index_t kx = 0; kx < size; ++kx) {
      const vec w = load(weight + (ky * size + kx) * kLanes);
      const scalar* from = input + ky * row_pitch + kx * kLanes;
#pragma GCC unroll 12
      for (int r = 0; r < kRun; ++r) total[r] += load(from + r * kLanes) * w;
    }
  for (int r = 0; r < kRun; ++r) sums[r] = total[r];
}

}  // namespace

// x N x H x W x C, weight C x size x size, bias C or null -> y N x H x W x C. Scratch: `padded` N x groups x
// (H + size - 1) x (W + size - 1 + 12) x lanes, groups of one vector of channels, and `packed` groups x size^2 x lanes.
FFPLUG_EXPORT void depthwise_convolution(const scalar* x, const scalar* weight, const scalar* bias, scalar* y,
                                         scalar* padded, scalar* packed, index_t count, index_t height, index_t width,
                                         index_t channels, index_t size, index_t residual, index_t gelu) {
  const index_t groups = (channels + kLanes - 1) / kLanes, half = size / 2;
  const index_t padded_height = height + size - 1, row_pitch = (width + size - 1 + kRun) * kLanes;
#pragma omp parallel for
  for (index_t group = 0; group < groups; ++group)
    for (index_t k = 0; k < size * size; ++k)
      for (index_t lane = 0; lane < kLanes; ++lane) {
        const index_t c = group * kLanes + lane;
        packed[(group * size * size + k) * kLanes + lane] = c < channels ? weight[c * size * size + k] : 0;
      }
  // A group of channels lies together, with a border of zeros: neighbouring pixels are neighbours in memory.
#pragma omp parallel for schedule(dynamic)
  for (index_t job = 0; job < count * groups; ++job) {
    const index_t n = job / groups, group = job % groups, start = group * kLanes;
    const index_t lanes = std::min(kLanes, channels - start);
    const vec offset = bias ? load_part(bias + start, lanes) : vec{};
    scalar* own = padded + job * padded_height * row_pitch;
    for (index_t row = 0; row < padded_height; ++row) {
      const index_t source = row - half;
      scalar* to = own + row * row_pitch;
      if (source < 0 || source >= height) {
        std::fill_n(to, row_pitch, scalar(0));
        continue;
      }
      std::fill_n(to, half * kLanes, scalar(0));
      std::fill_n(to + (half + width) * kLanes, row_pitch - (half + width) * kLanes, scalar(0));
      const scalar* from = x + (n * height + source) * width * channels + start;
      for (index_t column = 0; column < width; ++column)
        store(to + (column + half) * kLanes,
              lanes == kLanes ? load(from + column * channels) : load_part(from + column * channels, lanes));
    }
    for (index_t row = 0; row < height; ++row)
      for (index_t column = 0; column < width; column += kRun) {
        vec sums[kRun];
        const scalar* input = own + row * row_pitch + column * kLanes;
        run(input, packed + group * size * size * kLanes, row_pitch, size, sums);
        for (index_t r = 0; r < std::min(kRun, width - column); ++r) {
          vec value = sums[r] + offset;
          if (residual) value += load(input + half * row_pitch + (r + half) * kLanes);
          if (gelu) value = vgelu(value);
          scalar* to = y + ((n * height + row) * width + column + r) * channels + start;
          lanes == kLanes ? store(to, value) : store_part(to, value, lanes);
        }
      }
  }
}

// y = gelu(a + b), element by element.
FFPLUG_EXPORT void add_gelu(const scalar* a, const scalar* b, scalar* y, index_t size) {
  const index_t vectors = size / kLanes;
#pragma omp parallel for
  for (index_t i = 0; i < vectors; ++i) store(y + i * kLanes, vgelu(load(a + i * kLanes) + load(b + i * kLanes)));
  const index_t rest = size - vectors * kLanes, at = vectors * kLanes;
  if (rest) store_part(y + at, vgelu(load_part(a + at, rest) + load_part(b + at, rest)), rest);
}
