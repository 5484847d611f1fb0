// Heads of 80 as they are, for spatial_attention.cu: no spare column, so lanes take off the shift and add up.
// Queries, keys and values lie in shared memory as five blocks of 16 columns, in the swizzle of 32 bytes.
#define ROW (2 * SIZE)    // bytes of a query in shared memory
#define PART (KEYS * ROW) // a stage's keys, or its values
#define SUMS 40           // a lane's share of an output
#define LARGEST (BF16 ? 1e30f : 65504.0f) // a sum of probabilities that may each be rounded to half precision

// Maps are of 16 columns, keys, blocks of 16 columns, items of the batch.
__device__ __forceinline__ void load(u32 to, const Map &map, int head, int key, int item, u32 barrier) {
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes"
        " [%0], [%1, {%2, %3, %4, %5}], [%6];"
        ::"r"(to), "l"(&map), "r"(0), "r"(key), "r"(head * (SIZE / 16)), "r"(item), "r"(barrier) : "memory");
}
// Rows of 32 bytes. apart: bytes from one block of 16 columns to the next.
__device__ __forceinline__ u64 blocks(u32 at, u32 apart) {
    return (u64)((at & 0x3FFFF) >> 4) | (u64)(apart >> 4) << 16 | (u64)(256 >> 4) << 32 | (u64)3 << 62;
}

struct Half {   // 64 queries of a group: a lane's share of rows g and g + 8 of each warp's 16
    u32 q;      // where they are
    u32 p[16];
    float s[32], o[SUMS], shifted[2], total[2];
};
__device__ __forceinline__ void take(Half (&halves)[2], const u16 *q, int q_row, u32 rows, int group) {
    const int mine = threadIdx.x % 128, row = 128 * group + mine;
    const int4 *from = (const int4 *)(q + (long long)mine * q_row);
#pragma unroll
    for (int i = 0; i < SIZE / 8; i++) {
        const int4 x = from[i];
        const u32 to = rows + 32 * (i / 2 * QUERIES + row) + 16 * (i % 2 ^ row / 4 % 2);
        asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(x.x), "r"(x.y), "r"(x.z), "r"(x.w));
    }
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    asm volatile("bar.sync %0, 128;" ::"r"(2 + group) : "memory");
#pragma unroll
    for (int h = 0; h < 2; h++) {
        halves[h].q = rows + 32 * (128 * group + 64 * h);
        halves[h].total[0] = halves[h].total[1] = 0.0f;
    }
}
__device__ __forceinline__ void shift(Half &half, int r, float by) { half.shifted[r] = by; }

#define LOGITS(to, add) \
    asm volatile( \
        "wgmma.mma_async.sync.aligned.m64n64k16." TYPES \
        " {" NAMES_32 "}, %32, %33, " add ", 1, 1, 0, 0;" \
        : EIGHT(to, s, 0), EIGHT(to, s, 8), EIGHT(to, s, 16), EIGHT(to, s, 24) : "l"(q), "l"(keys))
__device__ __forceinline__ void set_logits(float (&s)[32], u64 q, u64 keys) { LOGITS("=f", "0"); }
__device__ __forceinline__ void add_logits(float (&s)[32], u64 q, u64 keys) { LOGITS("+f", "1"); }
__device__ __forceinline__ void logits(Half &half, u32 keys) {
    set_logits(half.s, blocks(half.q, 16), blocks(keys, 16));
#pragma unroll
    for (int i = 1; i < SIZE / 16; i++)
        add_logits(half.s, blocks(half.q + 32 * QUERIES * i, 16), blocks(keys + 32 * KEYS * i, 16));
}
__device__ __forceinline__ void exponentials(Half &half) {
#pragma unroll
    for (int j = 0; j < 16; j++) {
        const float by = half.shifted[j % 2];
        const float a = power_of_two(half.s[2 * j] + by), b = power_of_two(half.s[2 * j + 1] + by);
        half.total[j % 2] += a + b;
        half.p[j] = pack(a, b);
    }
}
__device__ __forceinline__ void add_values(Half &half, int j, u32 values) {   // of keys 16 j to 16 j + 15
    float (&o)[SUMS] = half.o;
    const u32 *p = half.p + 4 * j;
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n80k16." TYPES
        " {" NAMES_32 ", %32, %33, %34, %35, %36, %37, %38, %39}, {%40, %41, %42, %43}, %44, 1, 1, 1, 1;"
        : EIGHT("+f", o, 0), EIGHT("+f", o, 8), EIGHT("+f", o, 16), EIGHT("+f", o, 24), EIGHT("+f", o, 32)
        : "r"(p[0]), "r"(p[1]), "r"(p[2]), "r"(p[3]), "l"(blocks(values + 512 * j, 32 * KEYS)));
}
__device__ __forceinline__ float total_of(const Half &half, int r) {
    float total = half.total[r];
    for (int j = 1; j < 4; j *= 2) total += __shfl_xor_sync(~0u, total, j);
    return total;
}
