// What every CUDA kernel of FFPlug starts from: the scalar type, index arithmetic and sums over a warp.
//
// Compiled by NVRTC, which includes no system header, and by the host's C++ compiler under the emulation that tests use
// (ffplug/testing/cuda_emulation.h). Shared memory has a fixed size, and kernels take pointers, int64_t and double.
#pragma once

#ifdef __CUDACC_RTC__
typedef long long int64_t;
#endif

using scalar = FFPLUG_SCALAR;
using index_t = int64_t;

#define FFPLUG_KERNEL extern "C" __global__ void

__device__ inline index_t global_thread() {
  return static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

// Sum over the 32 lanes of a warp; every lane must take part, lane 0 holds the result.
__device__ inline scalar warp_sum(scalar value) {
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_down_sync(0xffffffffu, value, offset);
  return value;
}
