// What Hopper's kernels share, after common.cu: barriers, the tensor copy engine's maps, products of warp groups.
typedef unsigned long long u64;

__device__ __forceinline__ u32 shared_at(const void *at) { return (u32)__cvta_generic_to_shared(at); }
__device__ __forceinline__ void expect(u32 barrier, u32 count) {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(barrier), "r"(count));
}
__device__ __forceinline__ void wait(u32 barrier, u32 parity) {
    asm volatile(
        "{\n.reg .pred done;\nagain:\n"
        "mbarrier.try_wait.parity.shared.b64 done, [%0], %1;\n"
        "@!done bra again;\n}" ::"r"(barrier), "r"(parity) : "memory");
}
__device__ __forceinline__ void arrive(u32 barrier) {
    asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ __forceinline__ void arrive_with(u32 barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
struct alignas(64) Map {   // CUtensorMap
    char bytes[128];
};

// Rows of 128 bytes in shared memory, in the order that the loads' 128-byte swizzle gives them. Eight rows are
// 1,024 bytes.
__device__ __forceinline__ u64 matrix(u32 at) {
    return (u64)((at & 0x3FFFF) >> 4) | (u64)1 << 16 | (u64)(1024 >> 4) << 32 | (u64)1 << 62;
}
__device__ __forceinline__ void begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void send() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int LEFT> __device__ __forceinline__ void finish() {   // all but the last LEFT sent
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
}
template <int N> __device__ __forceinline__ void hold(float (&x)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(x[i])::"memory");
}

#define EIGHT(to, x, i) to(x[i]), to(x[i + 1]), to(x[i + 2]), to(x[i + 3]), to(x[i + 4]), to(x[i + 5]), to(x[i + 6]), to(x[i + 7])
// The first operands of an instruction, as PTX wants them named.
#define NAMES_24 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23"
#define NAMES_32 NAMES_24 ", %24, %25, %26, %27, %28, %29, %30, %31"
