// Kernels for uint8 pixels on a CPU: normalisation, and Pillow's affine transform.
//
// pixels.py calls these functions through ctypes. It checks sizes and allocates every output;
// nothing is checked here.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "memory.h"

namespace {

// Computes (x - mean) / std of uint8 (pixels, channels), which is channels-last, in one pass.
void normalise(const uint8_t *x, int64_t pixels, int64_t channels, const float *mean,
               const float *std, float *y, int threads) {
    constexpr int64_t STRIP = 1024;
    const int64_t strips = (pixels + STRIP - 1) / STRIP;
    // Strips of pixels are processed with the moments laid out like the pixels, so that the loop is
    // simple enough to vectorise.
    std::vector<float> means(STRIP * channels), stds(STRIP * channels);
    for (int64_t i = 0; i < STRIP * channels; ++i)
        means[i] = mean[i % channels], stds[i] = std[i % channels];
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t strip = 0; strip < strips; ++strip) {
        const int64_t first = strip * STRIP * channels,
                      count = std::min(STRIP, pixels - strip * STRIP) * channels;
        for (int64_t i = 0; i < count; ++i)
            y[first + i] = (float(x[first + i]) - means[i]) / stds[i];
    }
}

// Computes the weights of four neighbours at a distance of 1 + d, d, 1 - d and 2 - d. Bicubic means
// cubic convolution with a = -1, as in Pillow.
inline void neighbours(float d, bool bicubic, float *w) {
    if (bicubic) {
        w[0] = d * (-1 + d * (2 - d));
        w[1] = 1 + d * d * (d - 2);
        w[2] = d * (1 + d * (1 - d));
        w[3] = d * d * (d - 1);
    } else {
        w[0] = w[3] = 0;
        w[1] = 1 - d;
        w[2] = d;
    }
}

// Cuts off the fraction, as Pillow does.
inline uint8_t level(float x) { return uint8_t(std::clamp(x + 1e-4f, 0.0f, 255.0f)); }

// Applies an affine transform to uint8 (height, width, C), keeping the size, as Pillow does. The
// output pixel (x, y) shows what lies at (a x + b y + c, d x + e y + f), measured at the pixels'
// centres. Outside the image, it is `fill`.
template <int C>
void warp(const uint8_t *image, int64_t height, int64_t width, const double *m, bool bicubic,
          const uint8_t *fill, uint8_t *out) {
    // For a shear along x, or a shift, the weights hold for a whole row, which is then a sum of
    // shifted rows.
    const bool by_rows = m[0] == 1 && m[3] == 0 && m[4] == 1;
    std::vector<float> sums(width * C);
    // Otherwise each pixel looks at 4 x 4 others. Each has four floats, so that two fill a
    // register. Every edge has two more pixels, so that all 4 x 4 exist.
    typedef float eight __attribute__((vector_size(32)));
    const int64_t wide = width + 4;
    std::unique_ptr<float[]> padded(new float[by_rows ? 0 : (height + 4) * wide * 4]);
    for (int64_t y = 0; y < height + 4 && !by_rows; ++y)
        for (int64_t x = 0; x < wide; ++x) {
            const int64_t row = std::clamp<int64_t>(y - 2, 0, height - 1),
                          column = std::clamp<int64_t>(x - 2, 0, width - 1);
            for (int k = 0; k < 4; ++k)
                padded[(y * wide + x) * 4 + k] = image[(row * width + column) * C + k % C];
        }
    for (int64_t y = 0; y < height; ++y, out += width * C) {
        float wx[4], wy[4];
        if (by_rows) {
            const double shift = m[1] * (y + 0.5) + m[2], at_y = y + m[5];
            const int64_t first = int64_t(std::floor(shift)), top = int64_t(std::floor(at_y));
            // From `from` to `to`, x + 0.5 + shift is inside, as in the general case.
            int64_t from = std::max<int64_t>(0, int64_t(std::ceil(-shift - 0.5))), to = width;
            while (to > from && !(to - 1 + 0.5 + shift < width)) --to;
            if (!(at_y + 0.5 >= 0 && at_y + 0.5 < height) || to <= from) from = to = 0;
            neighbours(float(shift - first), bicubic, wx);
            neighbours(float(at_y - top), bicubic, wy);
            std::fill(sums.begin(), sums.end(), 0.0f);
            for (int i = 0; i < 4; ++i) {
                const uint8_t *row =
                    image + std::clamp<int64_t>(top + i - 1, 0, height - 1) * width * C;
                for (int j = 0; j < 4; ++j) {
                    const float w = wy[i] * wx[j];
                    if (w == 0) continue;
                    const int64_t offset = first + j - 1;
                    const int64_t inside = std::clamp<int64_t>(-offset, from, to);
                    const int64_t beyond = std::clamp<int64_t>(width - offset, inside, to);
                    for (int64_t x = from; x < inside; ++x)
                        for (int k = 0; k < C; ++k) sums[x * C + k] += w * row[k];
                    for (int64_t n = inside * C; n < beyond * C; ++n)
                        sums[n] += w * row[n + offset * C];
                    for (int64_t x = beyond; x < to; ++x)
                        for (int k = 0; k < C; ++k) sums[x * C + k] += w * row[(width - 1) * C + k];
                }
            }
            for (int64_t x = 0; x < from; ++x) memcpy(out + x * C, fill, C);
            for (int64_t n = from * C; n < to * C; ++n) out[n] = level(sums[n]);
            for (int64_t x = to; x < width; ++x) memcpy(out + x * C, fill, C);
            continue;
        }
        const double x0 = m[1] * (y + 0.5) + m[2], y0 = m[4] * (y + 0.5) + m[5];
        for (int64_t x = 0; x < width; ++x) {
            double at_x = m[0] * (x + 0.5) + x0, at_y = m[3] * (x + 0.5) + y0;
            if (!(at_x >= 0 && at_x < width && at_y >= 0 && at_y < height)) {
                memcpy(out + x * C, fill, C);
                continue;
            }
            at_x -= 0.5, at_y -= 0.5;
            const int64_t left = int64_t(at_x + 1) - 1,
                          top = int64_t(at_y + 1) - 1;  // floor: neither is below -1
            neighbours(float(at_x - left), bicubic, wx);
            neighbours(float(at_y - top), bicubic, wy);
            eight first = {}, second = {};
            const float *from = padded.get() + ((top + 1) * wide + left + 1) * 4;
            for (int i = 0; i < 4; ++i, from += wide * 4) {
                eight low, high;
                memcpy(&low, from, sizeof low);
                memcpy(&high, from + 8, sizeof high);
                first += wy[i] * low;
                second += wy[i] * high;
            }
            const eight by = {wx[0], wx[0], wx[0], wx[0], wx[1], wx[1], wx[1], wx[1]};
            const eight and_by = {wx[2], wx[2], wx[2], wx[2], wx[3], wx[3], wx[3], wx[3]};
            const eight sum = first * by + second * and_by;
            for (int k = 0; k < C; ++k) out[x * C + k] = level(sum[k] + sum[k + 4]);
        }
    }
}

}  // namespace

extern "C" {
int normalise_uint8(const void *x, int64_t pixels, int64_t channels, const float *mean,
                    const float *std, float *y, int threads) {
    return with_memory(
        [&] { normalise((const uint8_t *)x, pixels, channels, mean, std, y, threads); });
}

int warp_uint8(const void *image, int64_t height, int64_t width, int64_t channels,
               const double *matrix, int64_t bicubic, const uint8_t *fill, void *out, int) {
    return with_memory([&] {
        (channels == 1 ? warp<1> : warp<3>)((const uint8_t *)image, height, width, matrix, bicubic,
                                            fill, (uint8_t *)out);
    });
}
}
