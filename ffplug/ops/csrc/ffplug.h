// What every C++ kernel of FFPlug starts from: the scalar type, vectors of it, and the bridge to the thread pool.
//
// A source is compiled once per scalar type (FFPLUG_SCALAR: float or double) and instruction set
// (FFPLUG_VECTOR_BYTES: 64, 32 or 16); FFPLUG_SCALAR_BYTES is the scalar's size, for the preprocessor. Vectors are the compiler's own vector types, so that the same text serves
// AVX-512, AVX2, SSE and NEON.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

using scalar = FFPLUG_SCALAR;
using index_t = int64_t;

constexpr index_t kLanes = FFPLUG_VECTOR_BYTES / sizeof(scalar);
typedef scalar vec __attribute__((vector_size(FFPLUG_VECTOR_BYTES)));

#define FFPLUG_EXPORT extern "C" __attribute__((visibility("default")))

inline vec load(const scalar* from) {
  vec value;
  std::memcpy(&value, from, sizeof(vec));
  return value;
}

inline void store(scalar* to, vec value) { std::memcpy(to, &value, sizeof(vec)); }

inline vec broadcast(scalar value) { return value - vec{}; }

inline vec vmax(vec a, vec b) { return a > b ? a : b; }

inline vec vmin(vec a, vec b) { return a < b ? a : b; }

// The first `count` lanes, the others zero.
inline vec load_part(const scalar* from, index_t count) {
  vec value = {};
  std::memcpy(&value, from, count * sizeof(scalar));
  return value;
}

inline void store_part(scalar* to, vec value, index_t count) { std::memcpy(to, &value, count * sizeof(scalar)); }

// e^x, within 2 units in the last place for float; double goes through the standard library.
inline vec vexp(vec x) {
#if FFPLUG_SCALAR_BYTES == 8
  for (index_t i = 0; i < kLanes; ++i) x[i] = std::exp(x[i]);
  return x;
#else
  typedef int32_t ivec __attribute__((vector_size(FFPLUG_VECTOR_BYTES)));
  const vec low = broadcast(-87.3f), high = broadcast(88.3f), zero = {};
  const auto underflow = x < low;
  x = vmin(vmax(x, low), high);
  const vec magic = broadcast(12582912.0f);  // adding it rounds to an integer
  const vec n = (x * scalar(1.44269504088896341) + magic) - magic;
  vec r = x - n * scalar(0.693359375);
  r = r - n * scalar(-2.12194440e-4);
  vec p = broadcast(1.9875691500e-4f);
  p = p * r + scalar(1.3981999507e-3);
  p = p * r + scalar(8.3334519073e-3);
  p = p * r + scalar(4.1665795894e-2);
  p = p * r + scalar(1.6666665459e-1);
  p = p * r + scalar(5.0000001201e-1);
  p = p * (r * r) + r + scalar(1);
  const ivec bits = (__builtin_convertvector(n, ivec) + 127) << 23;
  vec power;
  std::memcpy(&power, &bits, sizeof(vec));
  return underflow ? zero : p * power;
#endif
}

// The exact GELU, x * P(normal < x); float through erfc's expansion 7.1.26 of Abramowitz and Stegun (error below 2e-7 x).
inline vec vgelu(vec x) {
#if FFPLUG_SCALAR_BYTES == 8
  for (index_t i = 0; i < kLanes; ++i) x[i] = x[i] * 0.5 * std::erfc(-x[i] * 0.70710678118654752440);
  return x;
#else
  const vec zero = {};
  const vec z = (x < zero ? -x : x) * scalar(0.70710678118654752440);
  const vec t = scalar(1) / (scalar(1) + z * scalar(0.3275911));
  vec p = broadcast(1.061405429f);
  p = p * t - scalar(1.453152027);
  p = p * t + scalar(1.421413741);
  p = p * t - scalar(0.284496736);
  p = p * t + scalar(0.254829592);
  const vec tail = x * scalar(0.5) * (p * t) * vexp(-z * z);  // x times the probability beyond |x|
  return x > zero ? x - tail : tail;
#endif
}

// Sum of the lanes, by halves: the order does not depend on the number of threads.
inline scalar reduce(vec value) {
  scalar lanes[kLanes];
  store(lanes, value);
  for (index_t width = kLanes / 2; width > 0; width /= 2)
    for (index_t i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  return lanes[0];
}

FFPLUG_EXPORT void ffplug_set_threads(int count) { omp_set_num_threads(count); }
