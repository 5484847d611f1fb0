// Temporal attention: over the frames of a clip, at each position by itself. One warp does one head of one
// position, with all its frames in registers: 16 rows of SIZE columns.
#define WIDTH (HEADS * SIZE)
#define WHOLE (SIZE / 32)   // parts of 32 columns
#define REST (SIZE % 32)    // 0, 8 or 16 more
#define SCALE (1.4426950408889634f * rsqrtf((float)SIZE))
__device__ __forceinline__ u32 transposed(u32 x) {   // of 8 x 8 values, a row of two each lane
    u32 y;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
    return y;
}
__device__ __forceinline__ void product(float (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col." TYPES ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
__device__ __forceinline__ void half_product(float (&d)[4], u32 a0, u32 a1, u32 b0) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col." TYPES ".f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a0), "r"(a1), "r"(b0));
}

// A lane's share of rows g and g + 8: columns 8t to 8t + 7 of each whole part, the rest in turn. Which columns
// a product calls neighbours does not matter as long as queries and keys agree.
struct Rows {
    uint4 whole[2][WHOLE > 0 ? WHOLE : 1];
    u32 rest[2][2];
};

__device__ __forceinline__ void load(Rows &rows, const u16 *at, int frame_row, int g, int t) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
        bool there = g + 8 * r < FRAMES;
        const u16 *from = at + (long long)(g + 8 * r) * frame_row;
#pragma unroll
        for (int c = 0; c < WHOLE; c++)
            rows.whole[r][c] = there ? __ldg((const uint4 *)(from + 32 * c + 8 * t)) : make_uint4(0, 0, 0, 0);
        rows.rest[r][0] = rows.rest[r][1] = 0;
        if (REST == 8 && there) rows.rest[r][0] = __ldg((const u32 *)(from + 32 * WHOLE + 2 * t));
        if (REST == 16 && there) {
            uint2 two = __ldg((const uint2 *)(from + 32 * WHOLE + 4 * t));
            rows.rest[r][0] = two.x;
            rows.rest[r][1] = two.y;
        }
    }
}

extern "C" __global__ void __launch_bounds__(256) temporal(
    const u16 *qkv, u16 *out, int positions, int row, int frame_row, int out_row, int out_frame)
{
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int unit = blockIdx.x * 8 + threadIdx.x / 32;
    const int head = unit % HEADS, position = unit / HEADS;
    if (position >= positions) return;
    const long long clip = blockIdx.y;
    const u16 *from = qkv + clip * FRAMES * frame_row + (long long)position * row + head * SIZE;
    Rows q, k, v;
    load(q, from, frame_row, g, t);
    load(k, from + WIDTH, frame_row, g, t);
    load(v, from + 2 * WIDTH, frame_row, g, t);

    float s[2][4] = {};
#pragma unroll
    for (int j = 0; j < 2; j++) {
#pragma unroll
        for (int c = 0; c < WHOLE; c++) {
            uint4 a = q.whole[0][c], b = q.whole[1][c], key = k.whole[j][c];
            product(s[j], a.x, b.x, a.y, b.y, key.x, key.y);
            product(s[j], a.z, b.z, a.w, b.w, key.z, key.w);
        }
        if (REST == 16) product(s[j], q.rest[0][0], q.rest[1][0], q.rest[0][1], q.rest[1][1], k.rest[j][0], k.rest[j][1]);
        if (REST == 8) half_product(s[j], q.rest[0][0], q.rest[1][0], k.rest[j][0]);
    }
    float top[2] = {-1e30f, -1e30f}, sum[2] = {0.0f, 0.0f};
#pragma unroll
    for (int j = 0; j < 2; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (8 * j + 2 * t + i % 2 >= FRAMES) s[j][i] = -1e30f;
            top[i / 2] = fmaxf(top[i / 2], s[j][i]);
        }
#pragma unroll
    for (int r = 0; r < 2; r++)
        for (int i = 1; i < 4; i *= 2) top[r] = fmaxf(top[r], __shfl_xor_sync(~0u, top[r], i));
#pragma unroll
    for (int j = 0; j < 2; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            s[j][i] = power_of_two((s[j][i] - top[i / 2]) * SCALE);
            sum[i / 2] += s[j][i];
        }
#pragma unroll
    for (int r = 0; r < 2; r++)
        for (int i = 1; i < 4; i *= 2) sum[r] += __shfl_xor_sync(~0u, sum[r], i);
    const float by[2] = {1.0f / sum[0], 1.0f / sum[1]};
    const u32 p0 = pack(s[0][0], s[0][1]), p1 = pack(s[0][2], s[0][3]), p2 = pack(s[1][0], s[1][1]), p3 = pack(s[1][2], s[1][3]);

    u16 *to = out + clip * FRAMES * out_frame + (long long)position * out_row + head * SIZE;
#define MIXED(LOW, HIGH, A, B) \
    { \
        float o[4] = {}; \
        product(o, p0, p1, p2, p3, transposed(A), transposed(B)); \
        LOW = pack(o[0] * by[0], o[1] * by[0]); \
        HIGH = pack(o[2] * by[1], o[3] * by[1]); \
    }
    u16 *low = to + (long long)g * out_frame, *high = to + (long long)(g + 8) * out_frame;
    const bool has_low = g < FRAMES, has_high = g + 8 < FRAMES;
#pragma unroll
    for (int c = 0; c < WHOLE; c++) {
        uint4 a = v.whole[0][c], b = v.whole[1][c], x, y;
        MIXED(x.x, y.x, a.x, b.x)
        MIXED(x.y, y.y, a.y, b.y)
        MIXED(x.z, y.z, a.z, b.z)
        MIXED(x.w, y.w, a.w, b.w)
        if (has_low) *(uint4 *)(low + 32 * c + 8 * t) = x;
        if (has_high) *(uint4 *)(high + 32 * c + 8 * t) = y;
    }
    if (REST > 0) {
        u32 x[2], y[2];
        MIXED(x[0], y[0], v.rest[0][0], v.rest[1][0])
        if (REST == 16) MIXED(x[1], y[1], v.rest[0][1], v.rest[1][1])
        if (REST == 8) {
            if (has_low) *(u32 *)(low + 32 * WHOLE + 2 * t) = x[0];
            if (has_high) *(u32 *)(high + 32 * WHOLE + 2 * t) = y[0];
        } else {
            if (has_low) *(uint2 *)(low + 32 * WHOLE + 4 * t) = make_uint2(x[0], x[1]);
            if (has_high) *(uint2 *)(high + 32 * WHOLE + 4 * t) = make_uint2(y[0], y[1]);
        }
    }
}
