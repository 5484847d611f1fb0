// The kernel of temporal_attention.cu on small inputs, beside float64. Prints its error.
#include "gpu.h"
#include "kernel.inc"

int main() {
    const int positions = 3, clips = 2, row = 3 * WIDTH, frame = positions * row;
    std::vector<half_t> qkv(clips * FRAMES * frame), out(clips * FRAMES * positions * WIDTH, (half_t)777);
    for (half_t &x : qkv) x = (half_t)(1.5f * drawn());
    for (int y = 0; y < clips; y++)
        for (int x = 0; x < (positions * HEADS + 7) / 8; x++)
            run_block({x, y}, 256, [&] {
                temporal((u16 *)qkv.data(), (u16 *)out.data(), positions, row, frame, WIDTH, positions * WIDTH);
            });
    double error = 0, size = 0;
    for (int clip = 0; clip < clips; clip++)
        for (int p = 0; p < positions; p++)
            for (int h = 0; h < HEADS; h++)
                for (int i = 0; i < FRAMES; i++) {
                    auto at = [&](int f, int part, int c) {
                        return (double)qkv[(clip * FRAMES + f) * frame + p * row + part * WIDTH + h * SIZE + c];
                    };
                    double weights[FRAMES], top = -1e9, sum = 0;
                    for (int j = 0; j < FRAMES; j++) {
                        weights[j] = 0;
                        for (int c = 0; c < SIZE; c++) weights[j] += at(i, 0, c) * at(j, 1, c) / sqrt(SIZE);
                        top = max(top, weights[j]);
                    }
                    for (double &w : weights) sum += w = exp(w - top);
                    for (int c = 0; c < SIZE; c++) {
                        double wanted = 0;
                        for (int j = 0; j < FRAMES; j++) wanted += weights[j] / sum * at(j, 2, c);
                        double made = out[((clip * FRAMES + i) * positions + p) * WIDTH + h * SIZE + c];
                        error += (made - wanted) * (made - wanted);
                        size += wanted * wanted;
                    }
                }
    printf("%.3e\n", sqrt(error / size));
}
