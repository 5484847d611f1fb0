// Spatial attention over two sources of keys with a sampled maximum, as `_sampled_attention` of attention.py,
// on Hopper's matrix units. Before it comes heads_40.cu or heads_80.cu: how such heads lie and are multiplied.
//
// A block has 256 queries of one head: two groups of four warps, 128 queries each, and one warp that loads.
// The exponentials' unit is what is short. So a group has two halves, and makes one half's exponentials while
// the matrix units work for the other (as FlashAttention 3, Shah et al. 2024, arXiv 2407.08608).
// Given: QUERIES of a block, KEYS of one stage, STAGES, GROUPS, and what a head is (spatial_cuda.py).
#define STAGE (2 * PART) // keys and values

__device__ __forceinline__ void add_values(Half &half, u32 values) {
#pragma unroll
    for (int j = 0; j < KEYS / 16; j++) add_values(half, j, values);
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
    const u32 rows = (shared_at(memory) + 1023) & ~1023, stages = rows + QUERIES * ROW;
    const u32 full = shared_at(barriers), free = full + 8 * STAGES;
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
        const int item = (int)batch, ref_item = item / share;
        for (int i = 0; i < count; i++) {
            const u32 to = stages + STAGE * (i % STAGES), loaded = full + 8 * (i % STAGES);
            if (i >= STAGES) wait(free + 8 * (i % STAGES), (i / STAGES + 1) & 1);
            arrive_with(loaded, i < 2 ? PART : STAGE);
            if (i == 0) load(to, sample, head, 0, item, loaded);
            else if (i == 1) load(to, ref_sample, head, 0, ref_item, loaded);
            else if (i - 2 < own_stages) {
                load(to, keys, head, (i - 2) * KEYS, item, loaded);
                load(to + PART, values, head, (i - 2) * KEYS, item, loaded);
            } else {
                load(to, ref_keys, head, (i - 2 - own_stages) * KEYS, ref_item, loaded);
                load(to + PART, ref_values, head, (i - 2 - own_stages) * KEYS, ref_item, loaded);
            }
        }
        return;
    }
    asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");

    const int t = lane % 4, group = warp / 4, first = blockIdx.x * QUERIES + 128 * group;
    Half halves[2];
    take(halves, q + batch * q_batch + (long long)first * q_row + head * WIDE, q_row, rows, group);
#pragma unroll
    for (int h = 0; h < 2; h++) {
#pragma unroll
        for (int i = 0; i < SUMS; i++) halves[h].o[i] = 0.0f;
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
            logits(halves[h], STAGE_AT(i));
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
            shift(halves[h], r, -(float)HEADROOM - x);
        }
        begin();
        logits(halves[h], STAGE_AT(2));
        send();
    }

    finish<0>();
    hold(halves[0].s);
    hold(halves[1].s);
    exponentials(halves[0]);
    for (int i = 2; i < count - 1; i++) {
        WAIT(i + 1)
        begin();
        logits(halves[0], STAGE_AT(i + 1));
        add_values(halves[0], STAGE_AT(i) + PART);
        send();
        exponentials(halves[1]);
        begin();
        logits(halves[1], STAGE_AT(i + 1));
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
        const float (&o)[SUMS] = halves[h].o;
        hold(halves[h].o);
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const float total = total_of(halves[h], r);
            if (!(total > 0.0f && total < LARGEST)) left[group] = 1;   // a NaN is left as well
            const float by = 1.0f / total;
            const long long row = first + 64 * h + 16 * (warp % 4) + 8 * r + lane / 4;
            u16 *to = out + batch * out_batch + row * out_row + head * SIZE + 2 * t;
#pragma unroll
            for (int j = 0; j < SIZE / 8; j++) *(u32 *)(to + 8 * j) = pack(o[4 * j + 2 * r] * by, o[4 * j + 2 * r + 1] * by);
        }
    }
    asm volatile("bar.sync 1, %0;" ::"n"(128 * GROUPS) : "memory");
    if (threadIdx.x < GROUPS) again[(blockIdx.y * gridDim.x + blockIdx.x) * GROUPS + threadIdx.x] = left[threadIdx.x];
}
