// What one pixel of the packed input is, for C++ and CUDA alike: STSS_FUNCTION says how its functions are declared.
#pragma once

constexpr int kFrames = 3, kLinks = 8, kChannels = 28;
constexpr int kFeatures = 9, kDepth = 3;                    // buffers, and which of them is depth
constexpr int kFeature = 6, kMask = 15, kHistory = 16;      // where they begin in the packed input

struct Packing {
  const scalar* image[kFrames];     // N x 3 x H x W, newest first
  const scalar* depth[kFrames];     // N x 1 x H x W, read where there are no labels
  const index_t* labels[kFrames];   // N x 1 x H x W, or null
  const scalar* motion[kLinks];     // N x 2 x H x W
  const scalar* feature;            // N x 9 x H x W
  const index_t* label;             // N x 1 x H x W, or null
  const scalar* fetch;              // N x 2 x H x W, or null
  index_t steps[kFrames], frames, height, width;
  bool chained, repeat;
  scalar tolerance;
};

// The four pixels around a place, on an axis: the first one's place, and how much the second one counts.
struct Taps {
  index_t below;
  scalar fraction;
};

STSS_FUNCTION Taps find_taps(scalar at, scalar last) {
  scalar kept = at > 0 ? at : scalar(0);
  kept = kept < last ? kept : last;
  const index_t below = index_t(kept);
  return {below, kept - scalar(below)};
}

STSS_FUNCTION scalar mix(scalar upper_left, scalar upper_right, scalar lower_left, scalar lower_right, scalar x,
                         scalar y) {
  return (1 - y) * ((1 - x) * upper_left + x * upper_right) + y * ((1 - x) * lower_left + x * lower_right);
}

// Channels of an image at a place; outside of the frame its border.
STSS_FUNCTION void sample_border(const scalar* image, index_t channels, scalar x, scalar y, index_t height,
                                 index_t width, scalar* to) {
  const Taps across = find_taps(x, scalar(width - 1)), down = find_taps(y, scalar(height - 1));
  const index_t at = down.below * width + across.below;
  const index_t beside = across.below + 1 < width ? 1 : 0, under = down.below + 1 < height ? width : 0;
  for (index_t c = 0; c < channels; ++c) {
    const scalar* plane = image + c * height * width + at;
    to[c] = mix(plane[0], plane[beside], plane[under], plane[under + beside], across.fraction, down.fraction);
  }
}

// The same with -10 around the frame: what is below zero comes from there.
STSS_FUNCTION void sample_framed(const scalar* image, scalar x, scalar y, index_t height, index_t width, scalar* to) {
  const Taps across = find_taps(x + 1, scalar(width + 1)), down = find_taps(y + 1, scalar(height + 1));
  const index_t left = across.below - 1, top = down.below - 1, at = top * width + left;
  const bool within = left >= 0 && top >= 0 && left + 1 < width && top + 1 < height;
  for (index_t c = 0; c < 3; ++c) {
    const scalar* plane = image + c * height * width;
    if (within) {
      const scalar* corner = plane + at;
      to[c] = mix(corner[0], corner[1], corner[width], corner[width + 1], across.fraction, down.fraction);
      continue;
    }
    scalar value[4];
    for (int k = 0; k < 4; ++k) {
      const index_t row = top + k / 2, column = left + k % 2;
      const bool there = row >= 0 && row < height && column >= 0 && column < width;
      value[k] = there ? plane[row * width + column] : scalar(-10);
    }
    to[c] = mix(value[0], value[1], value[2], value[3], across.fraction, down.fraction);
  }
}

STSS_FUNCTION void sample_colour(const Packing& p, const scalar* image, scalar x, scalar y, scalar* to) {
  if (p.repeat)
    sample_border(image, 3, x, y, p.height, p.width, to);
  else
    sample_framed(image, x, y, p.height, p.width, to);
}

// Whether the four pixels around a place belong to the present pixel's surface; the place is in the frame, or next to it.
STSS_FUNCTION bool same_surface(const Packing& p, index_t k, index_t n, index_t here, scalar x, scalar y) {
  const index_t plane = p.height * p.width, left = index_t(x) - (x < 0), top = index_t(y) - (y < 0);
  const index_t columns[2] = {left < 0 ? 0 : left, left + 1 < p.width ? left + 1 : p.width - 1};
  const index_t rows[2] = {top < 0 ? 0 : top * p.width, (top + 1 < p.height ? top + 1 : p.height - 1) * p.width};
  if (p.label) {
    const index_t* labels = p.labels[k] + n * plane;
    const index_t own = p.label[n * plane + here];
    return (labels[rows[0] + columns[0]] == own) & (labels[rows[0] + columns[1]] == own) &
           (labels[rows[1] + columns[0]] == own) & (labels[rows[1] + columns[1]] == own);
  }
  const scalar* depths = p.depth[k] + n * plane;
  scalar low = depths[rows[0] + columns[0]], high = low;
  for (int corner = 1; corner < 4; ++corner) {
    const scalar depth = depths[rows[corner / 2] + columns[corner % 2]];
    low = depth < low ? depth : low;
    high = depth > high ? depth : high;
  }
  const scalar depth = p.feature[(n * kFeatures + kDepth) * plane + here];
  const scalar slack = p.tolerance * (depth > scalar(1e-3) ? depth : scalar(1e-3));
  return depth >= low - slack && depth <= high + slack;
}

STSS_FUNCTION void put_colour(const scalar* from, scalar* to) {
  for (int c = 0; c < 3; ++c) to[c] = from[c] > 0 ? from[c] : scalar(0);
}

// All channels of one pixel.
STSS_FUNCTION void pack_pixel(const Packing& p, index_t n, index_t row, index_t column, scalar* to) {
  const index_t plane = p.height * p.width, here = row * p.width + column;
  scalar total[2] = {0, 0}, colour[3];
  index_t done = 0;
  for (index_t k = 0; k < p.frames; ++k) {
    for (; done < p.steps[k]; ++done) {
      const scalar* motion = p.motion[done] + n * 2 * plane;
      scalar more[2] = {motion[here], motion[plane + here]};
      if (p.chained && done > 0)
        sample_border(motion, 2, scalar(column) + total[0], scalar(row) + total[1], p.height, p.width, more);
      for (int c = 0; c < 2; ++c) total[c] = p.chained ? total[c] + more[c] : more[c];
    }
    const scalar* image = p.image[k] + n * 3 * plane;
    scalar* history = to + kHistory + 4 * (kFrames - 1 - k);
    bool valid = true;
    if (p.steps[k] == 0) {
      for (int c = 0; c < 3; ++c) colour[c] = image[c * plane + here];
    } else {
      const scalar x = scalar(column) + total[0], y = scalar(row) + total[1], slack = scalar(1e-4);
      sample_framed(image, x, y, p.height, p.width, colour);
      // The comparisons are false for what is not finite, which then is never turned into an index.
      valid = x >= -slack && y >= -slack && x <= scalar(p.width - 1) + slack && y <= scalar(p.height - 1) + slack &&
              !(colour[0] < 0) && !(colour[1] < 0) && !(colour[2] < 0) && same_surface(p, k, n, here, x, y);
      if (p.repeat) sample_colour(p, image, x, y, colour);
    }
    put_colour(colour, history);
    history[3] = valid ? 1 : 0;
    if (k > 0) continue;
    put_colour(colour, to + 3);
    to[kMask] = history[3];
    if (!valid && p.fetch) {
      const scalar* fetch = p.fetch + n * 2 * plane;
      sample_colour(p, image, scalar(column) + fetch[here], scalar(row) + fetch[plane + here], colour);
    }
    put_colour(colour, to);
  }
  for (index_t k = p.frames; k < kFrames; ++k) {  // what is missing of the history is the oldest there is, not valid
    scalar* history = to + kHistory + 4 * (kFrames - 1 - k);
    for (int c = 0; c < 3; ++c) history[c] = history[4 + c];
    history[3] = 0;
  }
  for (int c = 0; c < kFeatures; ++c) to[kFeature + c] = p.feature[(n * kFeatures + c) * plane + here];
}
