// A GPU's threads, barriers and matrix products on a CPU, enough for the kernels in gpu_worker/fast/kernels/*.cu.
// Every thread of a block is a thread here. Memory that nobody wrote is NaN.
#pragma once
#include <algorithm>
#include <barrier>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <vector>
using std::max;
using std::min;
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

static unsigned char shared_memory[256 * 1024];
static const unsigned SHARED_BASE = 4096;

inline float __fadd_rn(float a, float b) { volatile float c = a + b; return c; }
inline float __fsub_rn(float a, float b) { volatile float c = a - b; return c; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline int __float_as_int(float x) { int i; memcpy(&i, &x, 4); return i; }
inline float __int_as_float(int x) { float f; memcpy(&f, &x, 4); return f; }
inline unsigned short bits_of(float x) { half_t h = (half_t)x; unsigned short b; memcpy(&b, &h, 2); return b; }
inline float half_at(const void *p) { half_t h; memcpy(&h, p, 2); return (float)h; }
inline unsigned pair_of(float low, float high) { return bits_of(low) | (unsigned)bits_of(high) << 16; }

// Barriers of all threads, of warps, of warpgroups and of two warpgroups.
static std::unique_ptr<std::barrier<>> whole, warps[32], groups[8], pairs[4];
static int flags[4];
static unsigned lanes[32][32];
static std::mutex lock;

struct Arrivals { int count = 0, pending = 0; unsigned phase = 0; };
static std::map<unsigned, Arrivals> arrivals;
static std::condition_variable arrived;

inline void __syncthreads() { whole->arrive_and_wait(); }
inline void __syncwarp() {}
inline void expect_arrivals(unsigned at, int count) {
    std::lock_guard<std::mutex> held(lock);
    arrivals[at] = {count, count, 0};
}
inline void arrive_at(unsigned at) {
    std::lock_guard<std::mutex> held(lock);
    Arrivals &here = arrivals.at(at);
    if (--here.pending == 0) {
        here.pending = here.count;
        here.phase++;
        arrived.notify_all();
    }
}
inline void wait_at(unsigned at, unsigned parity) {
    std::unique_lock<std::mutex> held(lock);
    Arrivals &here = arrivals.at(at);
    if (!arrived.wait_for(held, std::chrono::seconds(60), [&] { return (here.phase & 1) != parity; })) {
        printf("thread %d waits for ever\n", threadIdx.x);
        exit(1);
    }
}
inline void copy_16_bytes(unsigned to, const void *from) { memcpy(shared_memory + to, from, 16); }

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
inline bool any_of_pair(int pair, bool x) {
    if (x) flags[pair] = 1;
    pairs[pair]->arrive_and_wait();
    return flags[pair];
}
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

// d (64 x N) = [d +] a (64 x 16) * b, shared by a warpgroup (PTX ISA, "wgmma.mma_async"). b lies in shared memory as
// its descriptor says, with the 128-byte swizzle: N rows of 16 columns, or, down, 16 rows of N columns.
template <int N, bool DOWN> inline void group_product(float *d, const unsigned *a, unsigned long long b, int add) {
    static float left[8][64][16];
    int group = threadIdx.x / 128, row = threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    for (int i = 0; i < 4; i++)
        for (int e = 0; e < 2; e++) left[group][row + i % 2 * 8][2 * t + i / 2 * 8 + e] = half_at((char *)&a[i] + 2 * e);
    groups[group]->arrive_and_wait();
    unsigned start = (b & 0x3fff) << 4, leading = (b >> 16 & 0x3fff) << 4, stride = (b >> 32 & 0x3fff) << 4;
    for (int i = 0; i < N / 2; i++) {
        int n = i / 4 * 8 + 2 * t + i % 2;
        float sum = add ? d[i] : 0.0f;
        for (int k = 0; k < 16; k++) {
            unsigned at = start + (DOWN ? n / 64 * leading + n % 64 * 2 + k / 8 * stride + k % 8 * 128
                                        : n / 8 * stride + n % 8 * 128 + k * 2);
            sum += left[group][row + i / 2 % 2 * 8][k] * half_at(shared_memory + (at ^ (at >> 7 & 7) << 4));
        }
        d[i] = sum;
    }
    groups[group]->arrive_and_wait();
}

// One block of `threads` threads that each call `kernel`.
template <class Kernel> void run_block(Place block, int threads, Kernel kernel) {
    arrivals.clear();
    memset(shared_memory, 0xff, sizeof shared_memory);
    whole = std::make_unique<std::barrier<>>(threads);
    for (auto &barrier : warps) barrier = std::make_unique<std::barrier<>>(32);
    for (auto &barrier : groups) barrier = std::make_unique<std::barrier<>>(128);
    for (auto &barrier : pairs) barrier = std::make_unique<std::barrier<>>(256);
    memset(flags, 0, sizeof flags);
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
