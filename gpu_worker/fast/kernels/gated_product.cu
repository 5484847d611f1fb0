// GEGLU (Shazeer 2020, arXiv 2002.05202) within the matrix product before it, on Hopper's matrix units: the wide
// rows of values and gates never go to memory.
//
// Two groups of four warps take turns, each with tiles of its own: one gates while the matrix units work for the
// other. One warp loads. A tile's columns are values and gates of half as many outputs.
//
// Where a block's columns of the weights fit, it keeps them (RESIDENT) and takes rows after rows, 64 by 256 columns.
// Else weights are loaded with rows, for two blocks of a cluster (CLUSTER), and a tile is 128 by 192.
//
// Given: DEPTH, INNER (outputs of a row), FLOAT8 (x and weights), OUT8, RESIDENT, CLUSTER, STAGES (gated_cuda.py).
#define GROUPS 2
#define WIDTH (FLOAT8 ? DEPTH : 2 * DEPTH)   // bytes of a row of x
#define CHUNKS ((WIDTH + 127) / 128)
#define LAST_STEPS (WIDTH / 32 - 4 * (CHUNKS - 1))   // of 32 bytes, in the last chunk
#define EACH (RESIDENT && OUT8 ? 16 : 8)   // outputs of a lane that lie side by side
#if RESIDENT
#define COLUMNS 256
#define PARTS 1   // of a tile, 64 rows each
#define LOADS 1   // of a chunk's weights
#else
#define COLUMNS 192
#define PARTS 2
#define LOADS (2 * COLUMNS / 64 / CLUSTER)   // a block's share: half of a group's outputs at a time
#endif
#define ROWS (64 * PARTS)
#define OUTPUTS (COLUMNS / 2)
#define ROW_BYTES (ROWS * 128)
#define WEIGHT_BYTES (COLUMNS * 128)
#define STAGE (RESIDENT ? ROW_BYTES : ROW_BYTES + WEIGHT_BYTES)

#if FLOAT8
#define SHAPE(columns) "m64n" columns "k32.f32.e4m3.e4m3 "
#define LAYOUT ""
#else
#define SHAPE(columns) "m64n" columns "k16." TYPES " "
#define LAYOUT ", 0, 0"
#endif
#define PRODUCT(columns, sums, first, second, third, list) \
    asm volatile( \
        "{\n.reg .pred add;\nsetp.ne.b32 add, " third ", 0;\n" \
        "wgmma.mma_async.sync.aligned." SHAPE(columns) \
        sums \
        " " first ", " second ", add, 1, 1" LAYOUT ";\n}" \
        : list : "l"(rows), "l"(weights), "r"(add))
#define LIST(...) __VA_ARGS__

__device__ __forceinline__ void product(float (&d)[COLUMNS / 2], u64 rows, u64 weights, int add) {
#if COLUMNS == 256
    PRODUCT("256",
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21,"
        " %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43,"
        " %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, %64, %65,"
        " %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, %86, %87,"
        " %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109,"
        " %110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127},",
        "%128", "%129", "%130", LIST(
          EIGHT("+f", d, 0), EIGHT("+f", d, 8), EIGHT("+f", d, 16), EIGHT("+f", d, 24),
          EIGHT("+f", d, 32), EIGHT("+f", d, 40), EIGHT("+f", d, 48), EIGHT("+f", d, 56),
          EIGHT("+f", d, 64), EIGHT("+f", d, 72), EIGHT("+f", d, 80), EIGHT("+f", d, 88),
          EIGHT("+f", d, 96), EIGHT("+f", d, 104), EIGHT("+f", d, 112), EIGHT("+f", d, 120)));
#else
    PRODUCT("192",
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21,"
        " %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43,"
        " %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, %64, %65,"
        " %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, %86, %87,"
        " %88, %89, %90, %91, %92, %93, %94, %95},",
        "%96", "%97", "%98", LIST(
          EIGHT("+f", d, 0), EIGHT("+f", d, 8), EIGHT("+f", d, 16), EIGHT("+f", d, 24),
          EIGHT("+f", d, 32), EIGHT("+f", d, 40), EIGHT("+f", d, 48), EIGHT("+f", d, 56),
          EIGHT("+f", d, 64), EIGHT("+f", d, 72), EIGHT("+f", d, 80), EIGHT("+f", d, 88)));
#endif
}
template <int STEPS>
__device__ __forceinline__ void products(float (&d)[PARTS][COLUMNS / 2], u32 rows, u32 weights, int add) {
#pragma unroll
    for (int step = 0; step < STEPS; step++)
#pragma unroll
        for (int part = 0; part < PARTS; part++)
            product(d[part], matrix(rows + 8192 * part + 32 * step), matrix(weights + 32 * step), add || step);
    send();
}

__device__ __forceinline__ void load_rows(u32 to, const Map &map, int column, int row, u32 barrier) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];"
        ::"r"(to), "l"(&map), "r"(column), "r"(row), "r"(barrier) : "memory");
}
// Its map has (column, value or gate, lane of four, output of a lane, group of outputs), so that rows come in the
// order in which a lane's sums lie: value and gate side by side, then the four lanes, then a lane's outputs.
__device__ __forceinline__ void load_weights(u32 to, const Map &map, int column, int each, int group, u32 barrier) {
#if CLUSTER > 1
    asm volatile(
        "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster"
        " [%0], [%1, {%2, %3, %3, %4, %5}], [%6], %7;"
        ::"r"(to), "l"(&map), "r"(column), "r"(0), "r"(each), "r"(group), "r"(barrier), "h"((u16)((1 << CLUSTER) - 1))
        : "memory");
#else
    asm volatile(
        "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes"
        " [%0], [%1, {%2, %3, %3, %4, %5}], [%6];"
        ::"r"(to), "l"(&map), "r"(column), "r"(0), "r"(each), "r"(group), "r"(barrier) : "memory");
#endif
}
// Of the same barrier in every block of the cluster.
__device__ __forceinline__ void arrive_in_all(u32 barrier) {
#if CLUSTER > 1
#pragma unroll
    for (int block = 0; block < CLUSTER; block++)
        asm volatile(
            "{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
            "mbarrier.arrive.shared::cluster.b64 _, [there];\n}" ::"r"(barrier), "r"(block) : "memory");
#else
    arrive(barrier);
#endif
}
__device__ __forceinline__ void meet() {   // all threads of the cluster that have not returned
#if CLUSTER > 1
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}

// value · gelu(gate). The normal distribution function is logistic to 2.5e-5 of the result, with its argument a
// polynomial that was fitted to that. The unit's own tanh is off by 5e-4, less than float16's rounding.
__device__ __forceinline__ float gated(float value, float gate) {
    const float square = fminf(gate * gate, 25.0f), half = 0.5f * gate;
    float share;
    asm("tanh.approx.f32 %0, %1;" : "=f"(share)
        : "f"(half * (1.59501518f + square * (0.07401199f + square * -0.00070319f))));
    return value * (half + half * share);
}
__device__ __forceinline__ void unpack(u32 pair, float &low, float &high) {
#if BF16
    low = __uint_as_float(pair << 16);
    high = __uint_as_float(pair & 0xFFFF0000u);
#else
    asm("{\n.reg .b16 low, high;\nmov.b32 {low, high}, %2;\ncvt.f32.f16 %0, low;\ncvt.f32.f16 %1, high;\n}"
        : "=f"(low), "=f"(high) : "r"(pair));
#endif
}
__device__ __forceinline__ void biases(float (&x)[EACH], const u16 *from) {
#pragma unroll
    for (int i = 0; i < EACH / 8; i++) {
        const uint4 four = ((const uint4 *)from)[i];
        unpack(four.x, x[8 * i], x[8 * i + 1]);
        unpack(four.y, x[8 * i + 2], x[8 * i + 3]);
        unpack(four.z, x[8 * i + 4], x[8 * i + 5]);
        unpack(four.w, x[8 * i + 6], x[8 * i + 7]);
    }
}
// A lane's outputs side by side: 16 bytes, or 8 in eight bits where a lane has 8.
__device__ __forceinline__ void store(unsigned char *to, const float (&x)[EACH], float scale) {
    u32 made[4];
#pragma unroll
    for (int i = 0; i < (OUT8 ? EACH / 4 : 4); i++) {
#if OUT8
        u16 low, high;
        asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(low) : "f"(x[4 * i + 1] * scale), "f"(x[4 * i] * scale));
        asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(high) : "f"(x[4 * i + 3] * scale), "f"(x[4 * i + 2] * scale));
        made[i] = (u32)low | (u32)high << 16;
#else
        made[i] = pack(x[2 * i], x[2 * i + 1]);
#endif
    }
    if (OUT8 && EACH == 8) *(uint2 *)to = make_uint2(made[0], made[1]);
    else *(uint4 *)to = make_uint4(made[0], made[1], made[2], made[3]);
}

// The outputs of a tile's 64 rows. scale: of the sums. out_scale: of outputs in eight bits.
__device__ __forceinline__ void write(
    const float (&d)[COLUMNS / 2], unsigned char *out, long long out_row, int row, int rows, int column, int t,
    const u16 *bias, float scale, float out_scale)
{
#pragma unroll
    for (int first = 0; first < COLUMNS / 8; first += EACH) {
        const int at = column + 4 * first + EACH * t;
        if (INNER % OUTPUTS != 0 && at >= INNER) break;
        float value_bias[EACH], gate_bias[EACH];
        biases(value_bias, bias + at);
        biases(gate_bias, bias + INNER + at);
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float made[EACH];
#pragma unroll
            for (int i = 0; i < EACH; i++) {
                const float *sums = d + 4 * (first + i) + 2 * r;
                made[i] = gated(sums[0] * scale + value_bias[i], sums[1] * scale + gate_bias[i]);
            }
            if (row + 8 * r < rows) store(out + (row + 8 * r) * out_row + (OUT8 ? at : 2 * at), made, out_scale);
        }
    }
}

extern "C" __global__ void __launch_bounds__(128 * GROUPS + 128, 1)
#if CLUSTER > 1
__cluster_dims__(CLUSTER, 1, 1)
#endif
gated_product(
    const __grid_constant__ Map x, const __grid_constant__ Map weights, const u16 *bias, unsigned char *out,
    int out_row /* bytes */, int rows, float scale, float out_scale)
{
    extern __shared__ __align__(1024) unsigned char memory[];
    __shared__ __align__(8) u64 barriers[2 * STAGES + 1 + GROUPS];
    const u32 stages = (shared_at(memory) + 1023) & ~1023, resident = stages + STAGES * STAGE;
    const u32 full = shared_at(barriers), free = full + 8 * STAGES, whole = free + 8 * STAGES, turns = whole + 8;
    const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0), lane = threadIdx.x % 32;   // the same in a warp
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            expect(full + 8 * i, 1);
            expect(free + 8 * i, 4 * CLUSTER);
        }
        expect(whole, 1);
        for (int i = 0; i < GROUPS; i++) expect(turns + 8 * i, 4);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    __syncthreads();
    meet();

    // Tiles of one column after the other, a cluster's blocks side by side in the rows. Resident: of one column.
    const int rank = blockIdx.x % CLUSTER, clusters = gridDim.x / CLUSTER;
    const int across = (INNER + OUTPUTS - 1) / OUTPUTS, down = (rows + ROWS * CLUSTER - 1) / (ROWS * CLUSTER);
    const int begin_at = RESIDENT ? blockIdx.x % across * down + blockIdx.x / across : blockIdx.x / CLUSTER;
    const int step = RESIDENT ? gridDim.x / across : clusters;
    const int end = RESIDENT ? (blockIdx.x % across + 1) * down : across * down;
#define COLUMN(tile) ((tile) / down)
#define ROW(tile) (((tile) % down * CLUSTER + rank) * ROWS)

    if (warp >= 4 * GROUPS) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
        if (threadIdx.x != 128 * GROUPS) return;
        if (RESIDENT) {
            arrive_with(whole, CHUNKS * WEIGHT_BYTES);
            for (int c = 0; c < CHUNKS; c++)
                load_weights(resident + WEIGHT_BYTES * c, weights, 128 / (WIDTH / DEPTH) * c, 0,
                             COLUMN(begin_at) * (OUTPUTS / 4 / EACH), whole);
        }
        int i = 0;
        for (int tile = begin_at; tile < end; tile += step)
            for (int c = 0; c < CHUNKS; c++, i++) {
                const u32 to = stages + STAGE * (i % STAGES), loaded = full + 8 * (i % STAGES);
                const int column = 128 / (WIDTH / DEPTH) * c;
                if (i >= STAGES) wait(free + 8 * (i % STAGES), (i / STAGES + 1) & 1);
                arrive_with(loaded, STAGE);
                load_rows(to, x, column, ROW(tile), loaded);
                if (!RESIDENT)
#pragma unroll
                    for (int load = LOADS * rank; load < LOADS * (rank + 1); load++)
                        load_weights(to + ROW_BYTES + 4096 * load, weights, column, load % 2 * (EACH / 2),
                                     COLUMN(tile) * (OUTPUTS / 4 / EACH) + load / 2, loaded);
            }
        return;
    }
    asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");

    const int group = warp / 4, g = lane / 4, t = lane % 4;
    float d[PARTS][COLUMNS / 2];
    if (RESIDENT) wait(whole, 0);
    for (int n = group, turn = 0;; n += GROUPS, turn++) {
        const int tile = begin_at + n * step;
        if (tile >= end) break;
        wait(turns + 8 * group, (turn + 1 + group) & 1);
#pragma unroll 1
        for (int c = 0; c < CHUNKS; c++) {
            const int i = n * CHUNKS + c;
            const u32 own = stages + STAGE * (i % STAGES);
            const u32 theirs = RESIDENT ? resident + WEIGHT_BYTES * c : own + ROW_BYTES;
            wait(full + 8 * (i % STAGES), (i / STAGES) & 1);
            begin();
            if (LAST_STEPS < 4 && c == CHUNKS - 1) products<LAST_STEPS>(d, own, theirs, c);
            else products<4>(d, own, theirs, c);
            if (lane == 0 && c == CHUNKS - 1) arrive(turns + 8 * (1 - group));
            if (c > 0) {
                finish<1>();
                if (lane == 0) arrive_in_all(free + 8 * ((i - 1) % STAGES));
            }
        }
        finish<0>();
        if (lane == 0) arrive_in_all(free + 8 * ((n * CHUNKS + CHUNKS - 1) % STAGES));
#pragma unroll
        for (int part = 0; part < PARTS; part++) {
            hold(d[part]);
            write(d[part], out, out_row, ROW(tile) + 64 * part + 16 * (warp % 4) + g, rows, COLUMN(tile) * OUTPUTS, t,
                  bias, scale, out_scale);
        }
    }
    meet();
}
