// Spatial attention over two sources of keys with a sampled maximum, as `_sampled_attention` of attention.py,
// on Hopper's matrix units: 48 of a head's 64 columns are multiplied, where Triton has to take 64 of the values.
//
// A block has 256 queries of one head: two groups of four warps, 128 queries each, and one warp that loads.
// The exponentials' unit is what is short. So a group has two halves, and makes one half's exponentials while
// the matrix units work for the other (as FlashAttention 3, Shah et al. 2024, arXiv 2407.08608).
// Given: KEYS of one stage, STAGES, GROUPS, and what a head is (spatial_cuda.py).
#define QUERIES (128 * GROUPS) // of one block
#define PART (KEYS * 128)     // a stage's keys, and its values: 64 columns each
#define STAGE (2 * PART)

// Maps are of columns of all heads, keys, items of the batch.
__device__ __forceinline__ void load(u32 to, const Map &map, int column, int key, int item, u32 barrier) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], [%5];"
        ::"r"(to), "l"(&map), "r"(column), "r"(key), "r"(item), "r"(barrier) : "memory");
}
#define LOGITS(to, add) \
    asm volatile( \
        "wgmma.mma_async.sync.aligned.m64n64k16." TYPES \
        " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23," \
        " %24, %25, %26, %27, %28, %29, %30, %31}, {%32, %33, %34, %35}, %36, " add ", 1, 1, 0;" \
        : EIGHT(to, s, 0), EIGHT(to, s, 8), EIGHT(to, s, 16), EIGHT(to, s, 24) \
        : "r"(q[0]), "r"(q[1]), "r"(q[2]), "r"(q[3]), "l"(keys))
__device__ __forceinline__ void set_logits(float (&s)[32], const u32 *q, u64 keys) { LOGITS("=f", "0"); }
__device__ __forceinline__ void add_logits(float (&s)[32], const u32 *q, u64 keys) { LOGITS("+f", "1"); }
__device__ __forceinline__ void values_product(float (&o)[24], const u32 *p, u64 values) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n48k16." TYPES
        " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23},"
        " {%24, %25, %26, %27}, %28, 1, 1, 1, 1;"
        : EIGHT("+f", o, 0), EIGHT("+f", o, 8), EIGHT("+f", o, 16) : "r"(p[0]), "r"(p[1]), "r"(p[2]), "r"(p[3]), "l"(values));
}
__device__ __forceinline__ void logits(float (&s)[32], const u32 (&q)[12], u32 stage) {
    set_logits(s, q, matrix(stage));
    add_logits(s, q + 4, matrix(stage + 32));
    add_logits(s, q + 8, matrix(stage + 64));
}

struct Half {   // 64 queries of a group: a lane's share of rows g and g + 8 of each warp's 16
    u32 q[12], p[16];
    float s[32], o[24];
};
__device__ __forceinline__ void exponentials(Half &half) {
#pragma unroll
    for (int j = 0; j < 16; j++) half.p[j] = pack(power_of_two(half.s[2 * j]), power_of_two(half.s[2 * j + 1]));
}
__device__ __forceinline__ void add_values(Half &half, u32 values) {
#pragma unroll
    for (int j = 0; j < 4; j++) values_product(half.o, half.p + 4 * j, matrix(values + 2048 * j));
}

extern "C" __global__ void __launch_bounds__(128 * GROUPS + 128, 1) spatial(
    const u16 *q, int q_row, int q_batch, int length, int ref_length, int share,
    const __grid_constant__ Map keys, const __grid_constant__ Map values, const __grid_constant__ Map sample,
    const __grid_constant__ Map ref_keys, const __grid_constant__ Map ref_values, const __grid_constant__ Map ref_sample,
    u16 *out, int out_row, int out_batch, int *again)
{
    extern __shared__ __align__(1024) unsigned char memory[];
    __shared__ __align__(8) u64 barriers[2 * STAGES];
    __shared__ int left[GROUPS];
    const u32 stages = (shared_at(memory) + 1023) & ~1023, full = shared_at(barriers), free = full + 8 * STAGES;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int head = blockIdx.y % HEADS;
    const long long batch = blockIdx.y / HEADS;
    if (threadIdx.x == 0)
        for (int i = 0; i < STAGES; i++) {
            expect(full + 8 * i, 1);
            expect(free + 8 * i, 4 * GROUPS);
        }
    if (threadIdx.x < GROUPS) left[threadIdx.x] = 0;
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    __syncthreads();

    const int own_stages = length / KEYS, count = 2 + own_stages + ref_length / KEYS;   // two of samples first
    if (warp >= 4 * GROUPS) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
        if (threadIdx.x != 128 * GROUPS) return;
        const int column = head * WIDE, item = (int)batch, ref_item = item / share;
        for (int i = 0; i < count; i++) {
            const u32 to = stages + STAGE * (i % STAGES), loaded = full + 8 * (i % STAGES);
            if (i >= STAGES) wait(free + 8 * (i % STAGES), (i / STAGES + 1) & 1);
            arrive_with(loaded, i < 2 ? PART : STAGE);
            if (i == 0) load(to, sample, column, 0, item, loaded);
            else if (i == 1) load(to, ref_sample, column, 0, ref_item, loaded);
            else if (i - 2 < own_stages) {
                load(to, keys, column, (i - 2) * KEYS, item, loaded);
                load(to + PART, values, column, (i - 2) * KEYS, item, loaded);
            } else {
                load(to, ref_keys, column, (i - 2 - own_stages) * KEYS, ref_item, loaded);
                load(to + PART, ref_values, column, (i - 2 - own_stages) * KEYS, ref_item, loaded);
            }
        }
        return;
    }
    asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");

    const int g = lane / 4, t = lane % 4, group = warp / 4;
    const int row = blockIdx.x * QUERIES + 128 * group + 16 * (warp % 4) + g;
    Half halves[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const u16 *from = q + batch * q_batch + (long long)(row + 64 * h) * q_row + head * WIDE + 2 * t;
#pragma unroll
        for (int i = 0; i < 12; i++)   // of each 16 columns: both rows' first eight, both rows' last eight
            halves[h].q[i] = *(const u32 *)(from + (long long)(i % 2 * 8) * q_row + i / 4 * 16 + i % 4 / 2 * 8);
#pragma unroll
        for (int i = 0; i < 24; i++) halves[h].o[i] = 0.0f;
        hold(halves[h].o);
    }
#define STAGE_AT(i) (stages + STAGE * ((i) % STAGES))
#define WAIT(i) wait(full + 8 * ((i) % STAGES), ((i) / STAGES) & 1);
#define FREE(i) if (lane == 0) arrive(free + 8 * ((i) % STAGES));

    float top[4] = {-1e30f, -1e30f, -1e30f, -1e30f};
    for (int i = 0; i < 2; i++) {   // the sample
        WAIT(i)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            begin();
            logits(halves[h].s, halves[h].q, STAGE_AT(i));
            send();
            finish<0>();
            hold(halves[h].s);
#pragma unroll
            for (int j = 0; j < 32; j++) top[2 * h + j / 2 % 2] = fmaxf(top[2 * h + j / 2 % 2], halves[h].s[j]);
        }
        FREE(i)
    }
    WAIT(2)
#pragma unroll
    for (int h = 0; h < 2; h++) {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float &x = top[2 * h + r];
            for (int j = 1; j < 4; j *= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, j));
            if (t == SIZE % 8 / 2)   // the spare column, whose keys are 1
                halves[h].q[SIZE / 16 * 4 + SIZE % 16 / 8 * 2 + r] = pack(-(float)HEADROOM - x, 0.0f);
        }
        begin();
        logits(halves[h].s, halves[h].q, STAGE_AT(2));
        send();
    }

    finish<0>();
    hold(halves[0].s);
    hold(halves[1].s);
    exponentials(halves[0]);
    for (int i = 2; i < count - 1; i++) {
        WAIT(i + 1)
        begin();
        logits(halves[0].s, halves[0].q, STAGE_AT(i + 1));
        add_values(halves[0], STAGE_AT(i) + PART);
        send();
        exponentials(halves[1]);
        begin();
        logits(halves[1].s, halves[1].q, STAGE_AT(i + 1));
        add_values(halves[1], STAGE_AT(i) + PART);
        send();
        finish<1>();
        hold(halves[0].s);
        exponentials(halves[0]);
        WAIT(i + 1)   // is over long since: the compiler moves no exponentials across it, to where nothing runs beside them
        finish<0>();
        hold(halves[1].s);
        FREE(i)
    }
    exponentials(halves[1]);
    begin();
    add_values(halves[0], STAGE_AT(count - 1) + PART);
    add_values(halves[1], STAGE_AT(count - 1) + PART);
    send();
    finish<0>();

#pragma unroll
    for (int h = 0; h < 2; h++) {
        const float (&o)[24] = halves[h].o;
        hold(halves[h].o);
        const float total[2] = {__shfl_sync(~0u, o[20], lane & ~3), __shfl_sync(~0u, o[22], lane & ~3)};
#pragma unroll
        for (int r = 0; r < 2; r++) {
            if (!(total[r] > 0.0f && total[r] < 1e30f)) left[group] = 1;   // a NaN is left as well
            const float by = 1.0f / total[r];
            u16 *to = out + batch * out_batch + (long long)(row + 64 * h + 8 * r) * out_row + head * SIZE + 2 * t;
#pragma unroll
            for (int j = 0; j < SIZE / 8; j++) *(u32 *)(to + 8 * j) = pack(o[4 * j + 2 * r] * by, o[4 * j + 2 * r + 1] * by);
        }
    }
    asm volatile("bar.sync 1, %0;" ::"n"(128 * GROUPS) : "memory");
    if (threadIdx.x < GROUPS) again[(blockIdx.y * gridDim.x + blockIdx.x) * GROUPS + threadIdx.x] = left[threadIdx.x];
}
