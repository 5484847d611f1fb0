// Heads of 40 in 64 columns, for spatial_attention.cu: 48 columns are multiplied. Column 40 of keys and values is 1,
// so that the products take off the shift and add up the probabilities.
#define ROW 0         // bytes of a query in shared memory: it stays in registers
#define PART (KEYS * 128)      // a stage's keys, or its values
#define SUMS 24       // a lane's share of an output
#define LARGEST 1e30f // a sum that is finite

// Maps are of columns of all heads, keys, items of the batch.
__device__ __forceinline__ void load(u32 to, const Map &map, int head, int key, int item, u32 barrier) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], [%5];"
        ::"r"(to), "l"(&map), "r"(head * WIDE), "r"(key), "r"(item), "r"(barrier) : "memory");
}

struct Half {   // 64 queries of a group: a lane's share of rows g and g + 8 of each warp's 16
    u32 q[12], p[16];
    float s[32], o[SUMS];
};
__device__ __forceinline__ void take(Half (&halves)[2], const u16 *q, int q_row, u32, int) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const u16 *from = q + (long long)(64 * h + threadIdx.x / 32 % 4 * 16 + lane / 4) * q_row + lane % 4 * 2;
#pragma unroll
        for (int i = 0; i < 12; i++)   // of each 16 columns: both rows' first eight, both rows' last eight
            halves[h].q[i] = *(const u32 *)(from + (long long)(i % 2 * 8) * q_row + i / 4 * 16 + i % 4 / 2 * 8);
    }
}
__device__ __forceinline__ void shift(Half &half, int r, float by) {
    if (threadIdx.x % 4 == SIZE % 8 / 2) half.q[SIZE / 16 * 4 + SIZE % 16 / 8 * 2 + r] = pack(by, 0.0f);
}

#define LOGITS(to, add) \
    asm volatile( \
        "wgmma.mma_async.sync.aligned.m64n64k16." TYPES \
        " {" NAMES_32 "}, {%32, %33, %34, %35}, %36, " add ", 1, 1, 0;" \
        : EIGHT(to, s, 0), EIGHT(to, s, 8), EIGHT(to, s, 16), EIGHT(to, s, 24) \
        : "r"(q[0]), "r"(q[1]), "r"(q[2]), "r"(q[3]), "l"(keys))
__device__ __forceinline__ void set_logits(float (&s)[32], const u32 *q, u64 keys) { LOGITS("=f", "0"); }
__device__ __forceinline__ void add_logits(float (&s)[32], const u32 *q, u64 keys) { LOGITS("+f", "1"); }
__device__ __forceinline__ void logits(Half &half, u32 keys) {
    set_logits(half.s, half.q, matrix(keys));
    add_logits(half.s, half.q + 4, matrix(keys + 32));
    add_logits(half.s, half.q + 8, matrix(keys + 64));
}
__device__ __forceinline__ void exponentials(Half &half) {
#pragma unroll
    for (int j = 0; j < 16; j++) half.p[j] = pack(power_of_two(half.s[2 * j]), power_of_two(half.s[2 * j + 1]));
}
__device__ __forceinline__ void add_values(Half &half, int j, u32 values) {   // of keys 16 j to 16 j + 15
    float (&o)[SUMS] = half.o;
    const u32 *p = half.p + 4 * j;
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n48k16." TYPES
        " {" NAMES_24 "}, {%24, %25, %26, %27}, %28, 1, 1, 1, 1;"
        : EIGHT("+f", o, 0), EIGHT("+f", o, 8), EIGHT("+f", o, 16)
        : "r"(p[0]), "r"(p[1]), "r"(p[2]), "r"(p[3]), "l"(matrix(values + 2048 * j)));
}
__device__ __forceinline__ float total_of(const Half &half, int r) {
    return __shfl_sync(~0u, half.o[20 + 2 * r], threadIdx.x % 32 & ~3);
}
