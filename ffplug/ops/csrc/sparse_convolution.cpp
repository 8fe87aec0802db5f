// Convolution at listed pixels, channels last: each pixel's inputs are read in place, nothing is gathered.
#include <vector>

#include "ffplug.h"

namespace {

constexpr index_t kWide = FFPLUG_VECTOR_BYTES == 64 ? 4 : 2;  // most vectors of output channels in a block
constexpr index_t kChunk = 96;                                // pixels that share a slab of weights in the cache
constexpr index_t kSlab = 32 * 1024 / sizeof(scalar);         // elements of a slab

// Pixels of a micro-kernel with so many vectors of output channels: their sums fill the registers.
constexpr int pixels_for(int vectors) { return vectors == 4 ? 6 : vectors == 3 ? 8 : kWide == 2 && vectors == 2 ? 6 : 12; }

// The output channels in blocks of nearly equal width, at most kWide vectors each.
struct Blocks {
  index_t vectors, count;

  explicit Blocks(index_t outputs)
      : vectors((outputs + kLanes - 1) / kLanes), count((vectors + kWide - 1) / kWide) {}
  index_t width(index_t block) const { return vectors / count + (block < vectors % count); }
  index_t start(index_t block) const { return block * (vectors / count) + std::min(block, vectors % count); }
};

// sums[kPixels][kVectors * kLanes] += the pixels' `depth` inputs times panel[depth][kVectors * kLanes]
template <int kVectors, int kPixels>
__attribute__((noinline)) void multiply(const scalar* const* rows, const scalar* panel, index_t depth, scalar* sums) {
  const scalar* row[kPixels];
  vec total[kPixels][kVectors];
#pragma GCC unroll 12
  for (int p = 0; p < kPixels; ++p) {
    row[p] = rows[p];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) total[p][v] = load(sums + (p * kVectors + v) * kLanes);
  }
  for (index_t k = 0; k < depth; ++k) {
    vec weight[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) weight[v] = load(panel + (k * kVectors + v) * kLanes);
#pragma GCC unroll 12
    for (int p = 0; p < kPixels; ++p)
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) total[p][v] += weight[v] * row[p][k];
  }
#pragma GCC unroll 12
  for (int p = 0; p < kPixels; ++p)
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) store(sums + (p * kVectors + v) * kLanes, total[p][v]);
}

struct Shape {
  index_t height, width, outputs, taps, inputs;  // taps along an axis: 1 or 3; inputs: channels of all buffers
};

struct Chunk {
  const int32_t* pixels;
  index_t count;
  uint16_t inside[kChunk];  // bit t: whether tap t of the pixel lies in the map
};

void find_inside(Chunk& chunk, const Shape& s) {
  for (index_t i = 0; i < chunk.count; ++i) {
    const index_t x = chunk.pixels[i] % s.width, y = chunk.pixels[i] / s.width % s.height;
    unsigned bits = s.taps == 3 ? 0777 : 1;
    if (s.taps == 3) {
      if (y == 0) bits &= ~07u;
      if (y == s.height - 1) bits &= ~0700u;
      if (x == 0) bits &= ~0111u;
      if (x == s.width - 1) bits &= ~0444u;
    }
    chunk.inside[i] = uint16_t(bits);
  }
}

// One block of output channels at the pixels of a chunk -> sums[pixel][kVectors * kLanes]
template <int kVectors>
void convolve(const scalar* const* buffers, const index_t* channels, index_t buffer_count, const Chunk& chunk,
              const scalar* panel, const scalar* zeros, scalar* sums, const Shape& s) {
  constexpr int kPixels = pixels_for(kVectors);
  constexpr index_t kDepth = kSlab / (kVectors * kLanes);
  const scalar* rows[kChunk + kPixels];
  const index_t groups = (chunk.count + kPixels - 1) / kPixels;
  std::fill_n(sums, groups * kPixels * kVectors * kLanes, scalar(0));
  for (index_t i = chunk.count; i < groups * kPixels; ++i) rows[i] = zeros;
  for (index_t t = 0; t < s.taps * s.taps; ++t) {
    const index_t step = (t / s.taps - s.taps / 2) * s.width + t % s.taps - s.taps / 2;
    for (index_t b = 0; b < buffer_count; ++b) {
      for (index_t i = 0; i < chunk.count; ++i)
        rows[i] = chunk.inside[i] >> t & 1 ? buffers[b] + (chunk.pixels[i] + step) * channels[b] : zeros;
      for (index_t from = 0; from < channels[b]; from += kDepth) {
        const index_t depth = std::min(kDepth, channels[b] - from);
        for (index_t g = 0; g < groups; ++g) {
          // One tap reads every input once, from pixels too far apart for the processor to foresee.
          if (s.taps == 1 && g + 1 < groups)
            for (index_t p = 0; p < kPixels; ++p)
              for (index_t c = 0; c < depth; c += 64 / sizeof(scalar))
                __builtin_prefetch(rows[(g + 1) * kPixels + p] + c);
          multiply<kVectors, kPixels>(rows + g * kPixels, panel, depth, sums + g * kPixels * kVectors * kLanes);
        }
        panel += depth * kVectors * kLanes;
        if (from + kDepth < channels[b])
          for (index_t i = 0; i < chunk.count; ++i)
            if (rows[i] != zeros) rows[i] += kDepth;
      }
    }
  }
}

inline vec activate(vec value, const scalar* slope) {
  return slope ? vmax(value, vec{}) + vmin(value, vec{}) * load(slope) : value;
}

inline void write(scalar* to, vec value, index_t lanes) {
  if (lanes >= kLanes)
    store(to, value);
  else
    store_part(to, value, lanes);
}

}  // namespace

// Positions of a mask's set elements, in order -> their number.
FFPLUG_EXPORT void active_pixels(const uint8_t* mask, int32_t* pixels, int64_t* found, index_t count) {
  index_t at = 0;
  for (index_t i = 0; i < count; ++i) {
    pixels[at] = int32_t(i);
    at += mask[i] != 0;
  }
  *found = at;
}

// weight outputs x inputs x taps x taps -> packed block x tap x input x (the block's vectors of output channels)
FFPLUG_EXPORT void pack_sparse_convolution(const scalar* weight, scalar* packed, index_t outputs, index_t inputs,
                                           index_t taps) {
  const Blocks blocks(outputs);
#pragma omp parallel for
  for (index_t block = 0; block < blocks.count; ++block) {
    const index_t start = blocks.start(block) * kLanes, width = blocks.width(block) * kLanes;
    scalar* to = packed + start * inputs * taps;
    std::memset(to, 0, width * inputs * taps * sizeof(scalar));
    for (index_t o = 0; o < std::min(width, outputs - start); ++o)
      for (index_t c = 0; c < inputs; ++c)
        for (index_t t = 0; t < taps; ++t)
          to[(t * inputs + c) * width + o] = weight[((start + o) * inputs + c) * taps + t];
  }
}

// buffers: addresses of N x H x W x channels[b]; bias, slope and outside: `outputs`, padded to whole vectors; bias and
// slope may be null; y N x H x W x outputs gets `outside` where no pixel is listed.
FFPLUG_EXPORT void sparse_convolution(const int64_t* addresses, const int64_t* channels, const int32_t* pixels,
                                      const scalar* packed, const scalar* bias, const scalar* slope,
                                      const scalar* outside, scalar* y, index_t buffer_count, index_t pixel_count,
                                      index_t count, index_t height, index_t width, index_t outputs, index_t taps) {
  index_t inputs = 0, widest = 0;
  std::vector<const scalar*> buffers(buffer_count);
  for (index_t b = 0; b < buffer_count; ++b) {
    buffers[b] = reinterpret_cast<const scalar*>(addresses[b]);
    inputs += channels[b];
    widest = std::max(widest, channels[b]);
  }
  const Shape s{height, width, outputs, taps, inputs};
  const Blocks blocks(outputs);
  const std::vector<scalar> zeros(widest + kLanes);
  // A chunk fills the unlisted pixels before each of its own; an empty list is one chunk.
  const index_t chunks = std::max<index_t>(1, (pixel_count + kChunk - 1) / kChunk), total = count * height * width;
  const auto fill = [&](index_t from, index_t to) {
    for (index_t i = from; i < to; ++i) std::memcpy(y + i * outputs, outside, outputs * sizeof(scalar));
  };
#pragma omp parallel
  {
    std::vector<scalar> sums((kChunk + 12) * kWide * kLanes);
#pragma omp for schedule(dynamic)
    for (index_t c = 0; c < chunks; ++c) {
      Chunk chunk{pixels + c * kChunk, std::min(kChunk, pixel_count - c * kChunk), {}};
      find_inside(chunk, s);
      index_t next = c ? chunk.pixels[-1] + 1 : 0;
      for (index_t i = 0; i < chunk.count; ++i) {
        fill(next, chunk.pixels[i]);
        next = chunk.pixels[i] + 1;
      }
      if (c == chunks - 1) fill(next, total);
      for (index_t block = 0; block < blocks.count; ++block) {
        const index_t vectors = blocks.width(block), start = blocks.start(block) * kLanes;
        const auto run = [&](auto kernel) {
          kernel(buffers.data(), channels, buffer_count, chunk, packed + start * inputs * taps * taps, zeros.data(),
                 sums.data(), s);
        };
        if (vectors == 1)
          run(convolve<1>);
        else if (vectors == 2)
          run(convolve<2>);
        else if constexpr (kWide == 4) {
          if (vectors == 3)
            run(convolve<3>);
          else
            run(convolve<4>);
        }
        for (index_t i = 0; i < chunk.count; ++i)
          for (index_t v = 0; v < vectors; ++v) {
            const index_t o = start + v * kLanes;
            vec value = load(sums.data() + (i * vectors + v) * kLanes);
            if (bias) value += load(bias + o);
            write(y + chunk.pixels[i] * outputs + o, activate(value, slope ? slope + o : nullptr), outputs - o);
          }
      }
    }
  }
}
