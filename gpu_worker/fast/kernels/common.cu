// What every kernel of this folder begins with: half precision, two numbers in a register.
typedef unsigned int u32;
typedef unsigned short u16;

#if BF16
#define TYPES "f32.bf16.bf16"
#define TO_PAIR "cvt.rn.bf16x2.f32 %0, %1, %2;"
#else
#define TYPES "f32.f16.f16"
#define TO_PAIR "cvt.rn.f16x2.f32 %0, %1, %2;"
#endif

__device__ __forceinline__ u32 pack(float low, float high) {
    u32 made;
    asm(TO_PAIR : "=r"(made) : "f"(high), "f"(low));
    return made;
}
__device__ __forceinline__ float power_of_two(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
