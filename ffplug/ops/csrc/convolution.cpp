// Dense 3x3, 1x5 and 5x1 convolutions of stride 1 by Winograd's minimal filtering, channels last.
//
// A tile of 4 outputs along an axis with r taps takes n = 3 + r products in place of 4 r (Winograd 1980; Lavin and
// Gray 2016): input and weights are evaluated at n points, multiplied there, and interpolated. The points are chosen for
// small rounding errors (half-integers beside integers: some 1e-5 of the result's deviation, in float).
#include <vector>

#include "ffplug.h"

namespace {

// One axis with kTaps taps: tile of kOut outputs from kIn inputs. kInput: kIn x kIn, kFilter: kIn x kTaps,
// kOutput: kOut x kIn.
template <int kTaps>
struct Axis;

template <>
struct Axis<1> {
  static constexpr int kOut = 1, kIn = 1;
  static constexpr double kInput[1][1] = {{1}}, kFilter[1][1] = {{1}}, kOutput[1][1] = {{1}};
};

// Points 0, 1, -1, 1/2, -2, infinity.
template <>
struct Axis<3> {
  static constexpr int kOut = 4, kIn = 6;
  static constexpr double kInput[6][6] = {
      {1, -1.5, -2, 1.5, 1, 0}, {0, -1, .5, 2.5, 1, 0},  {0, 1, -2.5, .5, 1, 0},
      {0, -2, -1, 2, 1, 0},     {0, .5, -1, -.5, 1, 0}, {0, 1, -1.5, -2, 1.5, 1},
  };
  static constexpr double kFilter[6][3] = {
      {1, 0, 0},
      {1. / 3, 1. / 3, 1. / 3},
      {-1. / 3, 1. / 3, -1. / 3},
      {-16. / 15, -8. / 15, -4. / 15},
      {1. / 15, -2. / 15, 4. / 15},
      {0, 0, 1},
  };
  static constexpr double kOutput[4][6] = {
      {1, 1, 1, 1, 1, 0}, {0, 1, -1, .5, -2, 0}, {0, 1, 1, .25, 4, 0}, {0, 1, -1, .125, -8, 1}};
};

// Points 0, 1, -1, 2, -2, 1/2, -1/2, infinity.
template <>
struct Axis<5> {
  static constexpr int kOut = 4, kIn = 8;
  static constexpr double kInput[8][8] = {
      {-1, 0, 5.25, 0, -5.25, 0, 1, 0},   {0, 1, 1, -4.25, -4.25, 1, 1, 0},
      {0, -1, 1, 4.25, -4.25, -1, 1, 0},  {0, .5, .25, -2.5, -1.25, 2, 1, 0},
      {0, -.5, .25, 2.5, -1.25, -2, 1, 0}, {0, 2, 4, -2.5, -5, .5, 1, 0},
      {0, -2, 4, 2.5, -5, -.5, 1, 0},     {0, -1, 0, 5.25, 0, -5.25, 0, 1},
  };
  static constexpr double kFilter[8][5] = {
      {-1, 0, 0, 0, 0},
      {-2. / 9, -2. / 9, -2. / 9, -2. / 9, -2. / 9},
      {-2. / 9, 2. / 9, -2. / 9, 2. / 9, -2. / 9},
      {1. / 90, 1. / 45, 2. / 45, 4. / 45, 8. / 45},
      {1. / 90, -1. / 45, 2. / 45, -4. / 45, 8. / 45},
      {32. / 45, 16. / 45, 8. / 45, 4. / 45, 2. / 45},
      {32. / 45, -16. / 45, 8. / 45, -4. / 45, 2. / 45},
      {0, 0, 0, 0, 1},
  };
  static constexpr double kOutput[4][8] = {{1, 1, 1, 1, 1, 1, 1, 0},
                                           {0, 1, -1, 2, -2, .5, -.5, 0},
                                           {0, 1, 1, 4, 4, .25, .25, 0},
                                           {0, 1, -1, 8, -8, .125, -.125, 1}};
};

// to[i] = sum_j matrix[i][j] * from[j]; the terms that are zero vanish when this is compiled.
#define FFPLUG_TRANSFORM(NAME, MATRIX, ROWS, COLUMNS)                                              \
  template <typename A, int kFrom, int kTo, int I = 0, int J = 0>                                  \
  inline void NAME(const vec* from, vec* to, vec sum = vec{}) {                                    \
    if constexpr (I < ROWS) {                                                                      \
      if constexpr (J == COLUMNS) {                                                                \
        to[I * kTo] = sum;                                                                         \
        NAME<A, kFrom, kTo, I + 1, 0>(from, to);                                                   \
      } else {                                                                                     \
        if constexpr (A::MATRIX[I][J] == 1)                                                        \
          sum += from[J * kFrom];                                                                  \
        else if constexpr (A::MATRIX[I][J] != 0)                                                   \
          sum += from[J * kFrom] * scalar(A::MATRIX[I][J]);                                        \
        NAME<A, kFrom, kTo, I, J + 1>(from, to, sum);                                              \
      }                                                                                            \
    }                                                                                              \
  }
FFPLUG_TRANSFORM(input_transform, kInput, A::kIn, A::kIn)
FFPLUG_TRANSFORM(filter_transform, kFilter, A::kIn, int(sizeof(A::kFilter[0]) / sizeof(double)))
FFPLUG_TRANSFORM(output_transform, kOutput, A::kOut, A::kIn)

constexpr index_t kBlock = 4 * kLanes;  // output channels of a packed panel
constexpr index_t kRows = 6;            // tiles of a micro-kernel

enum Activation { kNone, kRelu, kSigmoid, kTanh };

// Maps N x H x W x channels[b] that are read as one, channels after channels.
struct Inputs {
  const scalar* const* maps;
  const index_t* channels;
  index_t count;
};

// The pixels of a mask, for a convolution that is wanted there only: its tiles in order, what stands elsewhere.
struct Selection {
  const int32_t* tiles;
  index_t count;
  const uint8_t* mask;
  const scalar *slope, *outside;  // a value each output channel; slope of the PReLU or null
};

inline vec activate(vec value, index_t activation) {
  switch (activation) {
    case kRelu:
      return vmax(value, vec{});
    case kSigmoid:
      return scalar(1) / (scalar(1) + vexp(-value));
    case kTanh:
      return scalar(2) / (scalar(1) + vexp(scalar(-2) * value)) - scalar(1);
    default:
      return value;
  }
}

inline index_t round_up(index_t value, index_t step) { return (value + step - 1) / step * step; }

// sums[6][kVectors * kLanes] = rows[6][depth] * panel[depth][kBlock]
template <int kVectors>
inline void multiply(const scalar* rows, index_t row_pitch, const scalar* panel, index_t depth, scalar* sums,
                     index_t sum_pitch) {
  vec total[kRows][kVectors] = {};
  for (index_t k = 0; k < depth; ++k) {
    vec weight[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) weight[v] = load(panel + k * kBlock + v * kLanes);
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) total[r][v] += weight[v] * rows[r * row_pitch + k];
  }
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) store(sums + r * sum_pitch + v * kLanes, total[r][v]);
}

// The micro-kernel for a panel, in halves where 24 vectors of sums do not fit the registers.
inline void multiply_panel(const scalar* rows, index_t row_pitch, const scalar* panel, index_t depth, scalar* sums,
                           index_t sum_pitch, index_t width) {
  constexpr int kWide = FFPLUG_VECTOR_BYTES == 64 ? 4 : 2;
  const index_t vectors = (width + kLanes - 1) / kLanes;
  index_t v = 0;
  for (; v + kWide <= vectors; v += kWide)
    multiply<kWide>(rows, row_pitch, panel + v * kLanes, depth, sums + v * kLanes, sum_pitch);
  if (kWide == 4 && v + 2 <= vectors) {
    multiply<2>(rows, row_pitch, panel + v * kLanes, depth, sums + v * kLanes, sum_pitch);
    v += 2;
  }
  if (v < vectors) multiply<1>(rows, row_pitch, panel + v * kLanes, depth, sums + v * kLanes, sum_pitch);
}

struct Shape {
  index_t count, height, width, inputs, outputs;
};

template <int kTapsY, int kTapsX>
struct Convolution {
  using Y = Axis<kTapsY>;
  using X = Axis<kTapsX>;
  static constexpr int kPoints = Y::kIn * X::kIn;

  // weight outputs x inputs x kTapsY x kTapsX -> packed kPoints x panels x inputs x kBlock
  static void pack(const scalar* weight, scalar* packed, index_t outputs, index_t inputs) {
    constexpr int kTaps = kTapsY * kTapsX;
    const index_t panels = round_up(outputs, kBlock) / kBlock;
#pragma omp parallel for
    for (index_t group = 0; group < panels * 4; ++group)
      for (index_t c = 0; c < inputs; ++c) {
        scalar taps[kTaps][kLanes] = {};
        for (index_t lane = 0; lane < std::min(kLanes, outputs - group * kLanes); ++lane)
          for (int t = 0; t < kTaps; ++t)
            taps[t][lane] = weight[((group * kLanes + lane) * inputs + c) * kTaps + t];
        vec from[kTaps], half[Y::kIn * kTapsX], to[kPoints];
        for (int t = 0; t < kTaps; ++t) from[t] = load(taps[t]);
        for (int x = 0; x < kTapsX; ++x) filter_transform<Y, kTapsX, kTapsX>(from + x, half + x);
        for (int y = 0; y < Y::kIn; ++y) filter_transform<X, 1, 1>(half + y * kTapsX, to + y * X::kIn);
        for (int t = 0; t < kPoints; ++t)
          store(packed + ((t * panels + group / 4) * inputs + c) * kBlock + group % 4 * kLanes, to[t]);
      }
  }

  // One tile's input, at all points and for one group of channels, zero outside the map.
  static void gather(const scalar* x, index_t channels, const Shape& s, index_t n, index_t top, index_t left,
                     index_t start, index_t lanes, vec* values) {
    vec from[kPoints], half[kPoints];
    for (int i = 0; i < Y::kIn; ++i)
      for (int j = 0; j < X::kIn; ++j) {
        const index_t row = top + i - kTapsY / 2, column = left + j - kTapsX / 2;
        const bool inside = row >= 0 && row < s.height && column >= 0 && column < s.width;
        const scalar* at = x + ((n * s.height + row) * s.width + column) * channels + start;
        from[i * X::kIn + j] = !inside ? vec{} : lanes == kLanes ? load(at) : load_part(at, lanes);
      }
    for (int j = 0; j < X::kIn; ++j) input_transform<Y, X::kIn, X::kIn>(from + j, half + j);
    for (int i = 0; i < Y::kIn; ++i) input_transform<X, 1, 1>(half + i * X::kIn, values + i * X::kIn);
  }

  static void scatter(vec* sums, const scalar* bias, const scalar* addend, scalar* y, const Shape& s, index_t n,
                      index_t top, index_t left, index_t start, index_t lanes, index_t activation,
                      const Selection* chosen) {
    vec half[Y::kOut * X::kIn], out[Y::kOut * X::kOut];
    for (int j = 0; j < X::kIn; ++j) output_transform<Y, X::kIn, X::kIn>(sums + j, half + j);
    for (int i = 0; i < Y::kOut; ++i) output_transform<X, 1, 1>(half + i * X::kIn, out + i * X::kOut);
    const vec offset = bias ? load_part(bias + start, lanes) : vec{};
    const vec slope = chosen && chosen->slope ? load_part(chosen->slope + start, lanes) : broadcast(1);
    for (index_t i = 0; i < std::min<index_t>(Y::kOut, s.height - top); ++i)
      for (index_t j = 0; j < std::min<index_t>(X::kOut, s.width - left); ++j) {
        const index_t pixel = (n * s.height + top + i) * s.width + left + j, at = pixel * s.outputs + start;
        vec value = out[i * X::kOut + j] + offset;
        if (chosen)
          value = chosen->mask[pixel] ? vmax(value, vec{}) + vmin(value, vec{}) * slope
                                      : load_part(chosen->outside + start, lanes);
        if (addend) value += lanes == kLanes ? load(addend + at) : load_part(addend + at, lanes);
        value = activate(value, activation);
        if (lanes == kLanes)
          store(y + at, value);
        else
          store_part(y + at, value, lanes);
      }
  }

  static void run(const Inputs& x, const scalar* packed, const scalar* bias, const scalar* addend, scalar* y,
                  const Shape& s, index_t activation, const Selection* chosen = nullptr) {
    const index_t tiles_y = round_up(s.height, Y::kOut) / Y::kOut, tiles_x = round_up(s.width, X::kOut) / X::kOut;
    const index_t every = s.count * tiles_y * tiles_x, tiles = chosen ? chosen->count : every, panels = round_up(s.outputs, kBlock) / kBlock;
    const index_t depth = round_up(s.inputs, kLanes), width = round_up(s.outputs, kLanes);
    // A block of tiles is large enough to use a panel of weights many times, small enough for the cache.
    const index_t block = std::clamp(round_up(index_t(1 << 20) / (kPoints * (depth + width)), kRows), 4 * kRows,
                                     20 * kRows);
    const index_t blocks = (tiles + block - 1) / block;
#pragma omp parallel
    {
      std::vector<scalar> values(kPoints * block * depth), sums(kPoints * block * width);
#pragma omp for schedule(dynamic)
      for (index_t b = 0; b < blocks; ++b) {
        const index_t size = std::min(block, tiles - b * block);
        const auto corner = [&](index_t t, index_t& n, index_t& top, index_t& left) {
          const index_t tile = chosen ? chosen->tiles[b * block + t] : b * block + t;
          n = tile / (tiles_y * tiles_x);
          top = tile / tiles_x % tiles_y * Y::kOut;
          left = tile % tiles_x * X::kOut;
        };
        for (index_t t = 0; t < size; ++t) {
          index_t n, top, left;
          corner(t, n, top, left);
          scalar* to = values.data() + t * depth;
          for (index_t map = 0; map < x.count; to += x.channels[map++])
            for (index_t c = 0; c < x.channels[map]; c += kLanes) {
              vec points[kPoints];
              const index_t lanes = std::min(kLanes, x.channels[map] - c);
              gather(x.maps[map], x.channels[map], s, n, top, left, c, lanes, points);
              // Whole vectors where they fit: what they write too much, the next channels overwrite.
              if (to + c + kLanes <= values.data() + (t + 1) * depth)
                for (int p = 0; p < kPoints; ++p) store(to + p * block * depth + c, points[p]);
              else
                for (int p = 0; p < kPoints; ++p) store_part(to + p * block * depth + c, points[p], lanes);
            }
        }
        for (int p = 0; p < kPoints; ++p)
          for (index_t panel = 0; panel < panels; ++panel)
            for (index_t t = 0; t < size; t += kRows)
              multiply_panel(values.data() + (p * block + t) * depth, depth,
                             packed + (p * panels + panel) * s.inputs * kBlock, s.inputs,
                             sums.data() + (p * block + t) * width + panel * kBlock, width,
                             std::min(kBlock, width - panel * kBlock));
        for (index_t t = 0; t < size; ++t) {
          index_t n, top, left;
          corner(t, n, top, left);
          for (index_t o = 0; o < s.outputs; o += kLanes) {
            vec points[kPoints];
            for (int p = 0; p < kPoints; ++p) points[p] = load(sums.data() + (p * block + t) * width + o);
            scatter(points, bias, addend, y, s, n, top, left, o, std::min(kLanes, s.outputs - o), activation, chosen);
          }
        }
      }
    }
  }
};

// What stands outside a selection, in all tiles that it leaves out.
void fill_outside(scalar* y, const Shape& s, const Selection& chosen) {
  constexpr index_t kSide = Axis<3>::kOut;
  const index_t tiles_y = round_up(s.height, kSide) / kSide, tiles_x = round_up(s.width, kSide) / kSide;
#pragma omp parallel for
  for (index_t row = 0; row < s.count * tiles_y; ++row) {
    const int32_t* next = std::lower_bound(chosen.tiles, chosen.tiles + chosen.count, row * tiles_x);
    for (index_t x = 0; x < tiles_x; ++x) {
      if (next < chosen.tiles + chosen.count && *next == row * tiles_x + x) {
        ++next;
        continue;
      }
      const index_t top = row % tiles_y * kSide, left = x * kSide;
      for (index_t i = top; i < std::min(top + kSide, s.height); ++i)
        for (index_t j = left; j < std::min(left + kSide, s.width); ++j)
          std::memcpy(y + ((row / tiles_y * s.height + i) * s.width + j) * s.outputs, chosen.outside,
                      s.outputs * sizeof(scalar));
    }
  }
}

template <typename Function>
void with_kernel(index_t taps_y, index_t taps_x, Function function) {
  if (taps_y == 3 && taps_x == 3)
    function(Convolution<3, 3>{});
  else if (taps_y == 1)
    function(Convolution<1, 5>{});
  else
    function(Convolution<5, 1>{});
}

}  // namespace

// weight outputs x inputs x taps_y x taps_x -> packed points x ceil(outputs / (4 lanes)) x inputs x (4 lanes)
FFPLUG_EXPORT void pack_convolution(const scalar* weight, scalar* packed, index_t outputs, index_t inputs,
                                    index_t taps_y, index_t taps_x) {
  with_kernel(taps_y, taps_x, [&](auto kernel) { kernel.pack(weight, packed, outputs, inputs); });
}

// x N x H x W x inputs, addend and y N x H x W x outputs; bias and addend may be null.
FFPLUG_EXPORT void convolution(const scalar* x, const scalar* packed, const scalar* bias, const scalar* addend,
                               scalar* y, index_t count, index_t height, index_t width, index_t inputs,
                               index_t outputs, index_t taps_y, index_t taps_x, index_t activation) {
  const Shape s{count, height, width, inputs, outputs};
  const Inputs all{&x, &inputs, 1};
  with_kernel(taps_y, taps_x, [&](auto kernel) { kernel.run(all, packed, bias, addend, y, s, activation); });
}

// Tiles of 4 x 4 pixels that hold one of a mask's, in order -> their number.
FFPLUG_EXPORT void active_tiles(const uint8_t* mask, int32_t* tiles, int64_t* found, index_t count, index_t height,
                                index_t width) {
  constexpr index_t kSide = Axis<3>::kOut;
  const index_t tiles_y = round_up(height, kSide) / kSide, tiles_x = round_up(width, kSide) / kSide;
  std::vector<uint8_t> any(tiles_x * kSide);
  index_t at = 0;
  for (index_t row = 0; row < count * tiles_y; ++row) {
    const index_t top = row % tiles_y * kSide;
    std::fill(any.begin(), any.end(), 0);
    for (index_t i = top; i < std::min(top + kSide, height); ++i)
      for (index_t j = 0; j < width; ++j) any[j] |= mask[(row / tiles_y * height + i) * width + j];
    for (index_t x = 0; x < tiles_x; ++x) {
      uint32_t set;
      std::memcpy(&set, any.data() + x * kSide, kSide);
      if (set) tiles[at++] = int32_t(row * tiles_x + x);
    }
  }
  *found = at;
}

// A 3x3 convolution at the pixels of a mask N x H x W; addresses of maps N x H x W x channels[map], packed over all their
// channels; bias and slope may be null.
FFPLUG_EXPORT void masked_convolution(const int64_t* addresses, const int64_t* channels, const scalar* packed,
                                      const uint8_t* mask, const int32_t* tiles, const scalar* bias,
                                      const scalar* slope, const scalar* outside, scalar* y, index_t map_count,
                                      index_t tile_count, index_t count, index_t height, index_t width,
                                      index_t outputs) {
  std::vector<const scalar*> maps(map_count);
  Shape s{count, height, width, 0, outputs};
  for (index_t map = 0; map < map_count; ++map) {
    maps[map] = reinterpret_cast<const scalar*>(addresses[map]);
    s.inputs += channels[map];
  }
  const Selection chosen{tiles, tile_count, mask, slope, outside};
  fill_outside(y, s, chosen);
  Convolution<3, 3>::run({maps.data(), channels, map_count}, packed, bias, nullptr, y, s, kNone, &chosen);
}
