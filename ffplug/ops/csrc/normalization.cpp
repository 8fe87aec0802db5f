// Instance normalisation of channels-last maps, with the ReLU that follows it.
//
// The pixels of a sample are cut into bands of a fixed size, whatever the number of threads; a band's mean and sum of
// squares come from two passes while it lies in the cache, and bands are merged in order (Chan et al.), in double.
#include <vector>

#include "ffplug.h"

namespace {

constexpr index_t kBand = 512;  // pixels

inline index_t bands_of(index_t pixels) { return (pixels + kBand - 1) / kBand; }

// Calls body(start, lanes) for each group of channels that fits a vector.
template <typename Body>
inline void each_group(index_t channels, Body body) {
  for (index_t start = 0; start < channels; start += kLanes) body(start, std::min(kLanes, channels - start));
}

inline vec take(const scalar* from, index_t lanes) { return lanes == kLanes ? load(from) : load_part(from, lanes); }

inline void put(scalar* to, vec value, index_t lanes) {
  if (lanes == kLanes)
    store(to, value);
  else
    store_part(to, value, lanes);
}

struct Moments {
  std::vector<double> mean, square;  // one for each channel
};

Moments merge(const scalar* parts, index_t pixels, index_t channels) {
  Moments total{std::vector<double>(channels), std::vector<double>(channels)};
  double seen = 0;
  for (index_t band = 0; band < bands_of(pixels); ++band) {
    const double size = std::min(kBand, pixels - band * kBand);
    const scalar* mean = parts + band * 2 * channels;
    for (index_t c = 0; c < channels; ++c) {
      const double delta = mean[c] - total.mean[c];
      total.mean[c] += delta * size / (seen + size);
      total.square[c] += mean[channels + c] + delta * delta * seen * size / (seen + size);
    }
    seen += size;
  }
  return total;
}

}  // namespace

// x N x P x C -> moments N x 2 x C (mean, then 1 / standard deviation); `parts` N x bands x 2 x C is scratch.
FFPLUG_EXPORT void instance_norm_moments(const scalar* x, scalar* moments, scalar* parts, index_t count, index_t pixels,
                                         index_t channels, double eps) {
  const index_t bands = bands_of(pixels);
#pragma omp parallel for
  for (index_t job = 0; job < count * bands; ++job) {
    const index_t n = job / bands, first = job % bands * kBand, size = std::min(kBand, pixels - first);
    const scalar* from = x + (n * pixels + first) * channels;
    scalar* part = parts + job * 2 * channels;
    each_group(channels, [&](index_t start, index_t lanes) {
      // Counted from the first pixel, a large mean costs the sum no digits.
      const vec origin = take(from + start, lanes);
      vec sum = {};
      for (index_t p = 0; p < size; ++p) sum += take(from + p * channels + start, lanes) - origin;
      const vec mean = origin + sum / broadcast(scalar(size));
      vec square = {};
      for (index_t p = 0; p < size; ++p) {
        const vec delta = take(from + p * channels + start, lanes) - mean;
        square += delta * delta;
      }
      put(part + start, mean, lanes);
      put(part + channels + start, square, lanes);
    });
  }
  for (index_t n = 0; n < count; ++n) {
    const Moments total = merge(parts + n * bands * 2 * channels, pixels, channels);
    for (index_t c = 0; c < channels; ++c) {
      moments[n * 2 * channels + c] = scalar(total.mean[c]);
      moments[(n * 2 + 1) * channels + c] = scalar(1 / std::sqrt(total.square[c] / pixels + eps));
    }
  }
}

// y = (x - mean) * rstd, then the ReLU where `relu` is set.
FFPLUG_EXPORT void instance_norm(const scalar* x, const scalar* moments, scalar* y, index_t count, index_t pixels,
                                 index_t channels, index_t relu) {
  const index_t bands = bands_of(pixels);
#pragma omp parallel for
  for (index_t job = 0; job < count * bands; ++job) {
    const index_t n = job / bands, first = job % bands * kBand, size = std::min(kBand, pixels - first);
    const index_t offset = (n * pixels + first) * channels;
    const scalar *mean = moments + n * 2 * channels, *rstd = mean + channels;
    for (index_t p = 0; p < size; ++p)
      each_group(channels, [&](index_t start, index_t lanes) {
        const index_t at = offset + p * channels + start;
        vec value = (take(x + at, lanes) - take(mean + start, lanes)) * take(rstd + start, lanes);
        if (relu) value = vmax(value, vec{});
        put(y + at, value, lanes);
      });
  }
}

// The gradient: rstd * (g - mean(g) - z * mean(g * z)), z the normalised value and g masked by the ReLU.
FFPLUG_EXPORT void instance_norm_backward(const scalar* grad, const scalar* x, const scalar* moments, scalar* grad_x,
                                          scalar* parts, index_t count, index_t pixels, index_t channels,
                                          index_t relu) {
  const index_t bands = bands_of(pixels);
  const auto terms = [&](index_t n, index_t at, index_t start, index_t lanes, vec& g, vec& z) {
    const scalar *mean = moments + n * 2 * channels, *rstd = mean + channels;
    g = take(grad + at, lanes);
    z = (take(x + at, lanes) - take(mean + start, lanes)) * take(rstd + start, lanes);
    if (relu) g = z > vec{} ? g : vec{};
  };
#pragma omp parallel for
  for (index_t job = 0; job < count * bands; ++job) {
    const index_t n = job / bands, first = job % bands * kBand, size = std::min(kBand, pixels - first);
    scalar* part = parts + job * 2 * channels;
    each_group(channels, [&](index_t start, index_t lanes) {
      vec sum = {}, product = {}, g, z;
      for (index_t p = 0; p < size; ++p) {
        terms(n, (n * pixels + first + p) * channels + start, start, lanes, g, z);
        sum += g;
        product += g * z;
      }
      put(part + start, sum, lanes);
      put(part + channels + start, product, lanes);
    });
  }
  for (index_t n = 0; n < count; ++n) {
    scalar* total = parts + n * bands * 2 * channels;
    for (index_t c = 0; c < 2 * channels; ++c) {
      double sum = 0;
      for (index_t band = 0; band < bands; ++band) sum += total[band * 2 * channels + c];
      total[c] = scalar(sum / pixels);
    }
  }
#pragma omp parallel for
  for (index_t job = 0; job < count * bands; ++job) {
    const index_t n = job / bands, first = job % bands * kBand, size = std::min(kBand, pixels - first);
    const scalar *total = parts + n * bands * 2 * channels, *rstd = moments + (n * 2 + 1) * channels;
    for (index_t p = 0; p < size; ++p)
      each_group(channels, [&](index_t start, index_t lanes) {
        const index_t at = (n * pixels + first + p) * channels + start;
        vec g, z;
        terms(n, at, start, lanes, g, z);
        g = take(rstd + start, lanes) *
            (g - take(total + start, lanes) - z * take(total + channels + start, lanes));
        put(grad_x + at, g, lanes);
      });
  }
}
