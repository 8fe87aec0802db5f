// Depth-wise convolution with large kernels, channels last: bias, residual and GELU in the same pass.
//
// A vector holds neighbouring channels; a run of outputs in a row keeps its sums in registers while the kernel passes
// over it, so every load feeds a multiplication.
#include <vector>

#include "ffplug.h"

namespace {

constexpr index_t kRun = 8;  // outputs in a row

struct Shape {
  index_t count, height, width, channels, size;  // size: of the kernel
};

// sums[r] = sum over the kernel of weight * input, for kRun outputs and one vector of channels.
template <int kCount>
inline void run(const scalar* input, const scalar* weight, index_t row_pitch, index_t channels, index_t size,
                vec* sums) {
  vec total[kCount] = {};
  for (index_t ky = 0; ky < size; ++ky)
    for (index_t kx = 0; kx < size; ++kx) {
      const vec w = load(weight + (ky * size + kx) * kLanes);
      const scalar* from = input + ky * row_pitch + kx * channels;
#pragma GCC unroll 8
      for (int r = 0; r < kCount; ++r) total[r] += load(from + r * channels) * w;
    }
  for (int r = 0; r < kCount; ++r) sums[r] = total[r];
}

}  // namespace

// x N x H x W x C, weight C x size x size, bias C or null -> y N x H x W x C. Scratch: `padded` N x (H + size - 1) x
// (W + size - 1 + 8) x C' and `packed` C' / lanes x size^2 x lanes, C' the channels rounded up to whole vectors.
FFPLUG_EXPORT void depthwise_convolution(const scalar* x, const scalar* weight, const scalar* bias, scalar* y,
                                         scalar* padded, scalar* packed, index_t count, index_t height, index_t width,
                                         index_t channels, index_t size, index_t residual, index_t gelu) {
  const index_t groups = (channels + kLanes - 1) / kLanes, depth = groups * kLanes, half = size / 2;
  const index_t padded_height = height + size - 1, padded_width = width + size - 1 + kRun;
  const index_t row_pitch = padded_width * depth;
#pragma omp parallel
  {
#pragma omp for
    for (index_t job = 0; job < count * padded_height; ++job) {
      const index_t n = job / padded_height, source = job % padded_height - half;
      scalar* row = padded + job * row_pitch;
      std::fill_n(row, row_pitch, scalar(0));
      if (source < 0 || source >= height) continue;
      for (index_t column = 0; column < width; ++column)
        std::memcpy(row + (column + half) * depth, x + ((n * height + source) * width + column) * channels,
                    channels * sizeof(scalar));
    }
#pragma omp for
    for (index_t group = 0; group < groups; ++group)
      for (index_t k = 0; k < size * size; ++k)
        for (index_t lane = 0; lane < kLanes; ++lane) {
          const index_t c = group * kLanes + lane;
          packed[(group * size * size + k) * kLanes + lane] = c < channels ? weight[c * size * size + k] : 0;
        }
#pragma omp for schedule(dynamic)
    for (index_t job = 0; job < count * height; ++job) {
      const index_t n = job / height, row = job % height;
      for (index_t group = 0; group < groups; ++group) {
        const index_t start = group * kLanes, lanes = std::min(kLanes, channels - start);
        const vec offset = bias ? load_part(bias + start, lanes) : vec{};
        const scalar* input = padded + (n * padded_height + row) * row_pitch + start;
        for (index_t column = 0; column < width; column += kRun) {
          vec sums[kRun];
          run<kRun>(input + column * depth, packed + group * size * size * kLanes, row_pitch, depth, size, sums);
          for (index_t r = 0; r < std::min(kRun, width - column); ++r) {
            vec value = sums[r] + offset;
            if (residual) value += load(input + half * row_pitch + (column + r + half) * depth);
            if (gelu) value = vgelu(value);
            store_part(y + (job * width + column + r) * channels + start, value, lanes);
          }
        }
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
