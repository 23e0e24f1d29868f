// GELU of ConvNeXt V2 on a CPU with what GRN does over all positions, forward and backward, for
// float32 and bfloat16 activations.
//
// Each result is a sum in a fixed order, whatever the number of threads, so runs repeat bit for bit
// on any number of cores. Sums are float32. operations.py calls these functions through ctypes. It
// checks sizes and places, casts weights to float32 and allocates every output; nothing is checked
// here.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "bfloat16.h"
#include "exponential.h"
#include "memory.h"

namespace {

// Computes GELU and its derivative. The exact form is x * Phi(x), with erf from Abramowitz and
// Stegun 7.1.26 (error below 1.5e-7). The tanh form is
// 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))).
template <bool TANH>
inline void gelu(float x, float &value, float &slope) {
    if (TANH) {
        const float inner = 0.79788456f * (x + 0.044715f * x * x * x);
        const float e = exp_negative(-2 * std::fabs(inner));
        const float magnitude = (1 - e) / (1 + e);
        const float t = inner < 0 ? -magnitude : magnitude;
        value = 0.5f * x * (1 + t);
        slope = 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * 0.79788456f * (1 + 3 * 0.044715f * x * x);
    } else {
        const float e = exp_negative(-0.5f * x * x);
        const float t = 1 / (1 + 0.3275911f * 0.70710678f * std::fabs(x));
        const float poly =
            t * (0.254829592f +
                 t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
        const float tail = 0.5f * poly * e;  // 1 - Phi(|x|)
        const float phi = x < 0 ? tail : 1 - tail;
        value = x * phi;
        slope = phi + x * 0.39894228f * e;
    }
}

// Computes GELU alone. In the exact form, 1 - Phi(a) = 1/2 - a p(a^2), with p of degree 14 fitted
// so that the largest error of Phi is least: 1.3e-8 up to a = 5.2. Beyond that Phi counts as 1,
// which is wrong by 1e-7. In float32 arithmetic the error is 1.5e-7.
template <bool TANH>
inline float gelu(float x) {
    if (TANH) {
        float value, slope;
        gelu<true>(x, value, slope);
        return value;
    }
    const float a = std::fabs(x), t = x * x * 0.0739644970f - 1;  // from -1 at 0 to 1 at 5.2
    float p = 2.023896718e-4f;
    for (float next :
         {-5.622903399e-4f, 6.007602326e-4f, -9.785158405e-4f, 2.662441927e-3f, -5.067367773e-3f,
          8.010089950e-3f, -1.235335957e-2f, 1.813392262e-2f, -2.476344965e-2f, 3.196232313e-2f,
          -3.992539750e-2f, 5.002610991e-2f, -6.774380557e-2f, 1.359499782e-1f})
        p = p * t + next;
    const float tail = a > 5.2f ? 0 : 0.5f - a * p;
    return x * (x < 0 ? tail : 1 - tail);
}

constexpr int64_t CHUNK = 64;  // how many positions are summed separately

// Calls work(image, first position, count, chunk of the image) for each chunk of each image.
template <typename Work>
void for_chunks(int64_t images, int64_t positions, int threads, Work work) {
    const int64_t chunks = (positions + CHUNK - 1) / CHUNK;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t task = 0; task < images * chunks; ++task) {
        const int64_t n = task / chunks, chunk = task % chunks;
        work(n, chunk * CHUNK, std::min(CHUNK, positions - chunk * CHUNK), chunk);
    }
}

// Adds up the chunks of each image, from partial (images, chunks, columns) into sums
// (images, columns).
void add_chunks(const std::vector<float> &partial, int64_t images, int64_t chunks, int64_t columns,
                float *sums, int threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t n = 0; n < images; ++n) {
        float *to = sums + n * columns;
        std::fill(to, to + columns, 0.0f);
        for (int64_t chunk = 0; chunk < chunks; ++chunk) {
            const float *from = partial.data() + (n * chunks + chunk) * columns;
            for (int64_t c = 0; c < columns; ++c) to[c] += from[c];
        }
    }
}

// sums: (images, channels), the sums of value(x)^2 over the positions.
template <typename T, typename Value>
void add_squares(int64_t images, int64_t positions, int64_t channels, const T *x, float *sums,
                 int threads, Value value) {
    const int64_t chunks = (positions + CHUNK - 1) / CHUNK;
    std::vector<float> partial(images * chunks * channels, 0.0f);
    for_chunks(images, positions, threads,
               [&](int64_t n, int64_t first, int64_t count, int64_t chunk) {
                   float *to = partial.data() + (n * chunks + chunk) * channels;
                   for (int64_t p = first; p < first + count; ++p) {
                       const T *from = x + (n * positions + p) * channels;
                       for (int64_t c = 0; c < channels; ++c) {
                           const float root = value(to_float(from[c]));
                           to[c] += root * root;
                       }
                   }
               });
    add_chunks(partial, images, chunks, channels, sums, threads);
}

template <bool TANH, typename T>
void gelu_squares(int64_t images, int64_t positions, int64_t channels, const T *x, float *sums,
                  int threads) {
    add_squares(images, positions, channels, x, sums, threads,
                [](float value) { return gelu<TANH>(value); });
}

template <typename T>
void squares(int64_t images, int64_t positions, int64_t channels, const T *x, float *sums,
             int threads) {
    add_squares(images, positions, channels, x, sums, threads, [](float value) { return value; });
}

// Computes y = gelu(x) * scale + shift, with scale (images, channels) and shift (channels).
template <bool TANH, typename T>
void gelu_scale(int64_t images, int64_t positions, int64_t channels, const T *x, const float *scale,
                const float *shift, T *y, int threads) {
    for_chunks(images, positions, threads, [&](int64_t n, int64_t first, int64_t count, int64_t) {
        const float *by = scale + n * channels;
        for (int64_t p = first; p < first + count; ++p) {
            const T *from = x + (n * positions + p) * channels;
            T *to = y + (n * positions + p) * channels;
            for (int64_t c = 0; c < channels; ++c)
                put(to[c], gelu<TANH>(to_float(from[c])) * by[c] + shift[c]);
        }
    });
}

// sums: (images, 2, channels), the sums of gy * gelu(x) and of gy over the positions.
template <bool TANH, typename T>
void gelu_products(int64_t images, int64_t positions, int64_t channels, const T *x, const T *gy,
                   float *sums, int threads) {
    const int64_t chunks = (positions + CHUNK - 1) / CHUNK;
    std::vector<float> partial(images * chunks * 2 * channels, 0.0f);
    for_chunks(images, positions, threads,
               [&](int64_t n, int64_t first, int64_t count, int64_t chunk) {
                   float *products = partial.data() + (n * chunks + chunk) * 2 * channels,
                         *plain = products + channels;
                   for (int64_t p = first; p < first + count; ++p) {
                       const T *from = x + (n * positions + p) * channels,
                               *g = gy + (n * positions + p) * channels;
                       for (int64_t c = 0; c < channels; ++c) {
                           products[c] += to_float(g[c]) * gelu<TANH>(to_float(from[c]));
                           plain[c] += to_float(g[c]);
                       }
                   }
               });
    add_chunks(partial, images, chunks, 2 * channels, sums, threads);
}

// Computes gx = (gy * scale + pull * gelu(x)) * gelu'(x), with scale and pull (images, channels).
template <bool TANH, typename T>
void gelu_backward(int64_t images, int64_t positions, int64_t channels, const T *x, const T *gy,
                   const float *scale, const float *pull, T *gx, int threads) {
    for_chunks(images, positions, threads, [&](int64_t n, int64_t first, int64_t count, int64_t) {
        const float *by = scale + n * channels, *of = pull + n * channels;
        for (int64_t p = first; p < first + count; ++p) {
            const int64_t at = (n * positions + p) * channels;
            for (int64_t c = 0; c < channels; ++c) {
                float value, slope;
                gelu<TANH>(to_float(x[at + c]), value, slope);
                put(gx[at + c], (to_float(gy[at + c]) * by[c] + of[c] * value) * slope);
            }
        }
    });
}

}  // namespace

#define FOR_TYPE(suffix, T)                                                                        \
    int gelu_squares_##suffix(int64_t tanh, int64_t n, int64_t p, int64_t c, const void *x,        \
                              float *sums, int threads) {                                          \
        return with_memory([&] {                                                                   \
            (tanh ? gelu_squares<true, T> : gelu_squares<false, T>)(n, p, c, (const T *)x, sums,   \
                                                                    threads);                      \
        });                                                                                        \
    }                                                                                              \
    int squares_##suffix(int64_t n, int64_t p, int64_t c, const void *x, float *sums,              \
                         int threads) {                                                            \
        return with_memory([&] { squares<T>(n, p, c, (const T *)x, sums, threads); });             \
    }                                                                                              \
    int gelu_scale_##suffix(int64_t tanh, int64_t n, int64_t p, int64_t c, const void *x,          \
                            const float *scale, const float *shift, void *y, int threads) {        \
        return with_memory([&] {                                                                   \
            (tanh ? gelu_scale<true, T> : gelu_scale<false, T>)(n, p, c, (const T *)x, scale,      \
                                                                shift, (T *)y, threads);           \
        });                                                                                        \
    }                                                                                              \
    int gelu_products_##suffix(int64_t tanh, int64_t n, int64_t p, int64_t c, const void *x,       \
                               const void *gy, float *sums, int threads) {                         \
        return with_memory([&] {                                                                   \
            (tanh ? gelu_products<true, T> : gelu_products<false, T>)(                             \
                n, p, c, (const T *)x, (const T *)gy, sums, threads);                              \
        });                                                                                        \
    }                                                                                              \
    int gelu_backward_##suffix(int64_t tanh, int64_t n, int64_t p, int64_t c, const void *x,       \
                               const void *gy, const float *scale, const float *pull, void *gx,    \
                               int threads) {                                                      \
        return with_memory([&] {                                                                   \
            (tanh ? gelu_backward<true, T> : gelu_backward<false, T>)(                             \
                n, p, c, (const T *)x, (const T *)gy, scale, pull, (T *)gx, threads);              \
        });                                                                                        \
    }

extern "C" {
FOR_TYPE(float, float)
FOR_TYPE(bfloat16, bfloat16)
}
