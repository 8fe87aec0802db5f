// Runs CUDA kernels on the host, one thread of one block at a time, for tests on machines without a device.
//
// Every CUDA thread is a coroutine on a stack of its own. It runs until it ends or reaches a barrier (of its block or
// its warp); when all that live have reached it, they go on. What it shows: wrong indices, missing writes, wrong
// arithmetic, a barrier that not all threads reach. What it can't show: races, speed.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)

using std::max;
using std::min;
using std::ceil;
using std::exp;
using std::fabs;
using std::floor;
using std::fmax;
using std::fmin;
using std::isfinite;
using std::log;
using std::sqrt;

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};

static dim3 gridDim, blockDim, blockIdx, threadIdx;
constexpr int warpSize = 32;

namespace emulation {

constexpr size_t kStack = 128 * 1024;

struct Barrier {
  int waiting = 0;
  int generation = 0;
};

// ucontext gives a thread its stack; the switches are jumps, which spare the system call that swapcontext makes.
struct Thread {
  ucontext_t context;
  jmp_buf jump;
  bool started = false;
  std::vector<char> stack;
  dim3 index;
  bool done = false;
  Barrier* at = nullptr;
  int generation = 0;
};

static std::vector<Thread> threads;
static std::vector<Barrier> warps;
static std::vector<int> warp_alive;
static Barrier block_barrier;
static int alive, current;
static jmp_buf scheduler;
static std::function<void()>* body;
static double lane_values[64][32];  // exchanged by shuffles: warp, lane; 8 bytes hold every type in use

inline void release(Barrier& barrier, int participants) {
  if (barrier.waiting > 0 && barrier.waiting >= participants) {
    barrier.waiting = 0;
    ++barrier.generation;
  }
}

inline void wait(Barrier& barrier, int participants) {
  Thread& self = threads[current];
  self.at = &barrier;
  self.generation = barrier.generation;
  ++barrier.waiting;
  release(barrier, participants);
  if (self.generation == barrier.generation && _setjmp(self.jump) == 0) _longjmp(scheduler, 1);
  threads[current].at = nullptr;
  threadIdx = threads[current].index;  // other threads have run in between
}

inline int warp() { return current / warpSize; }

inline void sync_warp() { wait(warps[warp()], warp_alive[warp()]); }

inline void enter() {
  (*body)();
  Thread& self = threads[current];
  self.done = true;
  --alive;
  --warp_alive[warp()];
  release(block_barrier, alive);
  release(warps[warp()], warp_alive[warp()]);
  _longjmp(scheduler, 1);
}

inline void run_block(int count) {
  threads.resize(count);
  warps.assign((count + warpSize - 1) / warpSize, {});
  warp_alive.assign(warps.size(), 0);
  block_barrier = {};
  alive = count;
  for (int i = 0; i < count; ++i) {
    Thread& thread = threads[i];
    thread.stack.resize(kStack);
    thread.done = thread.started = false;
    thread.at = nullptr;
    thread.index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
    ++warp_alive[i / warpSize];
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack.data();
    thread.context.uc_stack.ss_size = kStack;
    thread.context.uc_link = nullptr;
    makecontext(&thread.context, enter, 0);
  }
  while (alive > 0) {
    volatile bool moved = false;
    for (volatile int i = 0; i < count; i = i + 1) {
      Thread& thread = threads[i];
      if (thread.done || (thread.at && thread.generation == thread.at->generation)) continue;
      moved = true;
      current = i;
      threadIdx = thread.index;
      if (_setjmp(scheduler) == 0) {
        if (thread.started) _longjmp(thread.jump, 1);
        thread.started = true;
        setcontext(&thread.context);
      }
    }
    if (!moved) {
      std::fprintf(stderr, "CUDA emulation: threads wait at a barrier that the others never reach\n");
      std::abort();
    }
  }
}

inline void launch(const int64_t* grid, const int64_t* block, std::function<void()> kernel) {
  gridDim = {unsigned(grid[0]), unsigned(grid[1]), unsigned(grid[2])};
  blockDim = {unsigned(block[0]), unsigned(block[1]), unsigned(block[2])};
  body = &kernel;
  for (unsigned z = 0; z < gridDim.z; ++z)
    for (unsigned y = 0; y < gridDim.y; ++y)
      for (unsigned x = 0; x < gridDim.x; ++x) {
        blockIdx = {x, y, z};
        run_block(int(block[0] * block[1] * block[2]));
      }
}

template <typename T>
T exchange(T value, int source) {
  static_assert(sizeof(T) <= sizeof(double), "shuffles take values of up to 8 bytes");
  const int lane = current % warpSize, w = warp();
  std::memcpy(&lane_values[w][lane], &value, sizeof(T));
  sync_warp();
  T result = value;
  if (source >= 0 && source < warpSize) std::memcpy(&result, &lane_values[w][source], sizeof(T));
  sync_warp();
  return result;
}

template <typename T>
int count_block(T predicate) {
  static int total;
  wait(block_barrier, alive);
  total = 0;
  wait(block_barrier, alive);
  total += predicate ? 1 : 0;
  wait(block_barrier, alive);
  return total;
}

}  // namespace emulation

inline void __syncthreads() {
  emulation::wait(emulation::block_barrier, emulation::alive);
}
inline void __syncwarp(unsigned = 0xffffffffu) {
  emulation::sync_warp();
}
inline void __threadfence() {}
inline int __syncthreads_count(int predicate) { return emulation::count_block(predicate); }
inline int __syncthreads_or(int predicate) { return emulation::count_block(predicate) > 0; }
inline int __syncthreads_and(int predicate) { return emulation::count_block(!predicate) == 0; }

template <typename T>
T __shfl_sync(unsigned, T value, int lane, int = 32) {
  return emulation::exchange(value, lane);
}
template <typename T>
T __shfl_down_sync(unsigned, T value, unsigned delta, int = 32) {
  return emulation::exchange(value, int(emulation::current % warpSize + delta));
}
template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask, int = 32) {
  return emulation::exchange(value, (emulation::current % warpSize) ^ mask);
}
inline unsigned __ballot_sync(unsigned, int predicate) {
  unsigned bits = 0;
  for (int lane = 0; lane < warpSize; ++lane)
    bits |= unsigned(emulation::exchange(predicate != 0, lane)) << lane;
  return bits;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __popc(unsigned value) { return __builtin_popcount(value); }

template <typename T>
T atomicAdd(T* at, T value) {
  T old = *at;
  *at += value;
  return old;
}
template <typename T>
T atomicMin(T* at, T value) {
  T old = *at;
  *at = min(old, value);
  return old;
}
template <typename T>
T atomicMax(T* at, T value) {
  T old = *at;
  *at = max(old, value);
  return old;
}
template <typename T>
T atomicExch(T* at, T value) {
  T old = *at;
  *at = value;
  return old;
}
template <typename T>
T atomicCAS(T* at, T expected, T value) {
  T old = *at;
  if (old == expected) *at = value;
  return old;
}
template <typename T>
T __ldg(const T* at) {
  return *at;
}
inline float __expf(float value) { return std::exp(value); }
inline float rsqrtf(float value) { return 1.0f / std::sqrt(value); }
inline double rsqrt(double value) { return 1.0 / std::sqrt(value); }
inline unsigned __float_as_uint(float value) {
  unsigned bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}
inline float __uint_as_float(unsigned bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
