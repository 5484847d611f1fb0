// A GPU's threads, barriers and matrix products on a CPU, enough for the kernels in gpu_worker/fast/kernels/*.cu.
// Every thread of a block is a thread here.
#pragma once
#include <algorithm>
#include <barrier>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <thread>
#include <vector>
using std::max;
typedef _Float16 half_t;
#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define rsqrtf(x) (1.0f / sqrtf(x))

struct Place { int x, y; };
struct uint4 { unsigned x, y, z, w; };
struct uint2 { unsigned x, y; };
inline uint4 make_uint4(unsigned a, unsigned b, unsigned c, unsigned d) { return {a, b, c, d}; }
inline uint2 make_uint2(unsigned a, unsigned b) { return {a, b}; }
template <class T> T __ldg(const T *p) { return *p; }
static thread_local Place threadIdx, blockIdx;

inline int __float_as_int(float x) { int i; memcpy(&i, &x, 4); return i; }
inline float __int_as_float(int x) { float f; memcpy(&f, &x, 4); return f; }
inline unsigned short bits_of(float x) { half_t h = (half_t)x; unsigned short b; memcpy(&b, &h, 2); return b; }
inline float half_at(const void *p) { half_t h; memcpy(&h, p, 2); return (float)h; }
inline unsigned pair_of(float low, float high) { return bits_of(low) | (unsigned)bits_of(high) << 16; }

static std::unique_ptr<std::barrier<>> warps[32];
static unsigned lanes[32][32];

inline unsigned exchanged(unsigned mine, int from) {
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    lanes[warp][lane] = mine;
    warps[warp]->arrive_and_wait();
    unsigned got = lanes[warp][from];
    warps[warp]->arrive_and_wait();
    return got;
}
inline float __shfl_sync(unsigned, float x, int from) { return __int_as_float(exchanged(__float_as_int(x), from)); }
inline float __shfl_xor_sync(unsigned mask, float x, int with) { return __shfl_sync(mask, x, threadIdx.x % 32 ^ with); }
inline unsigned transposed_8x8(unsigned x) {
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    lanes[warp][lane] = x;
    warps[warp]->arrive_and_wait();
    auto at = [&](int row, int column) { return lanes[warp][row * 4 + column / 2] >> 16 * (column & 1) & 0xffff; };
    unsigned made = at(2 * t, g) | at(2 * t + 1, g) << 16;
    warps[warp]->arrive_and_wait();
    return made;
}

// d (16 x 8) += a (16 x K) * b (K x 8), shared by a warp (PTX ISA, "Matrix Fragments for mma.m16n8k16")
inline void warp_product(float *d, const unsigned *a, const unsigned *b, int K) {
    static float left[32][16][16], right[32][16][8];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; i++)
        for (int e = 0; e < 2; e++) left[warp][g + i % 2 * 8][2 * t + i / 2 * 8 + e] = half_at((char *)&a[i] + 2 * e);
    for (int i = 0; i < 2; i++)
        for (int e = 0; e < 2; e++) right[warp][2 * t + 8 * i + e][g] = half_at((char *)&b[i] + 2 * e);
    warps[warp]->arrive_and_wait();
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < K; k++) d[i] += left[warp][g + i / 2 * 8][k] * right[warp][k][2 * t + i % 2];
    warps[warp]->arrive_and_wait();
}

// One block of `threads` threads that each call `kernel`.
template <class Kernel> void run_block(Place block, int threads, Kernel kernel) {
    for (auto &barrier : warps) barrier = std::make_unique<std::barrier<>>(32);
    std::vector<std::thread> all;
    for (int i = 0; i < threads; i++)
        all.emplace_back([=] {
            threadIdx = {i, 0};
            blockIdx = block;
            kernel();
        });
    for (auto &one : all) one.join();
}

static std::mt19937 generator(1);
inline float drawn() { return std::normal_distribution<float>()(generator); }
