// The depthwise convolution of ConvNeXt V2 on a CPU, forward and backward, for float32 and bfloat16
// activations.
//
// Each result is a sum in a fixed order, whatever the number of threads, so runs repeat bit for bit
// on any number of cores. Sums are float32. operations.py calls these functions through ctypes. It
// checks sizes and places, casts weights to float32 and allocates every output; nothing is checked
// here.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "bfloat16.h"
#include "memory.h"

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint32_t bits32 __attribute__((vector_size(4 * LANES)));
typedef uint16_t bits16 __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

constexpr int K = 7, RADIUS = K / 2;

// These act on LANES neighbours at once.
inline vec load(const float *from) { return *(const vec *)from; }
inline vec load(const bfloat16 *from) {
    return (vec)(__builtin_convertvector(*(const bits16 *)from, bits32) << 16);
}
inline void store(float *to, vec x) { *(vec *)to = x; }
inline void store(bfloat16 *to, vec x) {  // rounds as `put` does
    const bits32 bits = (bits32)x, rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    *(bits16 *)to = __builtin_convertvector(
        (bits & 0x7fffffff) > 0x7f800000 ? (bits >> 16) | 0x40 : rounded, bits16);
}
// These act on the first of the neighbours only. The others are 0 after loading.
template <typename T>
inline vec load(const T *from, int64_t lanes) {
    if (lanes == LANES) return load(from);
    T some[LANES] = {};
    memcpy(some, from, lanes * sizeof(T));
    return load(some);
}
template <typename T>
inline void store(T *to, vec x, int64_t lanes) {
    if (lanes == LANES) return store(to, x);
    T some[LANES];
    store(some, x);
    memcpy(to, some, lanes * sizeof(T));
}

// Where the given positions lie. They come in runs of `run` neighbours in a row. Run r of image n
// starts at place places[n * runs + r], counted in runs over the images' canvases one after the
// other. Without places, every run of the canvas is given, in order.
struct Layout {
    const int64_t *places;
    int64_t images, runs, run, height, width, channels;

    int64_t row(int64_t n, int64_t r) const {
        int64_t place = places ? places[n * runs + r] : n * runs + r;
        return place / (width / run) - n * height;
    }
    int64_t column(int64_t n, int64_t r) const {
        int64_t place = places ? places[n * runs + r] : n * runs + r;
        return place % (width / run) * run;
    }
};

// Puts one image's given positions, LANES channels from `c` on, onto a canvas of zeros that has a
// border of RADIUS.
template <typename T>
void paint(const Layout &at, const T *x, int64_t n, int64_t c, float *canvas) {
    const int64_t wide = at.width + 2 * RADIUS, lanes = std::min<int64_t>(LANES, at.channels - c);
    memset(canvas, 0, sizeof(float) * (at.height + 2 * RADIUS) * wide * LANES);
    for (int64_t r = 0; r < at.runs; ++r) {
        float *to = canvas + ((at.row(n, r) + RADIUS) * wide + at.column(n, r) + RADIUS) * LANES;
        const T *from = x + (n * at.runs + r) * at.run * at.channels + c;
        for (int64_t w = 0; w < at.run; ++w)
            store(to + w * LANES, load(from + w * at.channels, lanes));
    }
}

// Computes N neighbouring outputs. `from` is the canvas at the upper left of the first output's
// window.
template <int N, typename T>
void convolve(const float *from, int64_t wide, const float *weight, vec bias, T *to,
              int64_t channels, int64_t lanes) {
    vec sums[N];
    for (int i = 0; i < N; ++i) sums[i] = bias;
    for (int row = 0; row < K; ++row)
        for (int column = 0; column < K; ++column) {
            vec w = *(const vec *)(weight + (row * K + column) * LANES);
            for (int i = 0; i < N; ++i)
                sums[i] += w * *(const vec *)(from + (row * wide + column + i) * LANES);
        }
    for (int i = 0; i < N; ++i) store(to + i * channels, sums[i], lanes);
}

// weight: float (49, channels).
template <typename T>
void depthwise(const Layout &at, const T *x, const float *weight, const float *bias, T *y,
               int threads) {
    const int64_t wide = at.width + 2 * RADIUS, blocks = (at.channels + LANES - 1) / LANES;
    const int64_t tasks = at.images * blocks;
    Scratch canvases(threads, (at.height + 2 * RADIUS) * wide * LANES);
#pragma omp parallel num_threads(threads)
    {
        float *const canvas = canvases.take();
        alignas(64) float packed[K * K * LANES], start[LANES];
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < tasks; ++task) {
            const int64_t n = task / blocks, c = task % blocks * LANES;
            const int64_t lanes = std::min<int64_t>(LANES, at.channels - c);
            for (int k = 0; k < K * K; ++k)
                for (int64_t l = 0; l < LANES; ++l)
                    packed[k * LANES + l] = l < lanes ? weight[k * at.channels + c + l] : 0;
            for (int64_t l = 0; l < LANES; ++l) start[l] = bias && l < lanes ? bias[c + l] : 0;
            const vec b = *(const vec *)start;
            paint(at, x, n, c, canvas);
            for (int64_t r = 0; r < at.runs; ++r) {
                const float *from = canvas + (at.row(n, r) * wide + at.column(n, r)) * LANES;
                T *to = y + (n * at.runs + r) * at.run * at.channels + c;
                int64_t left = at.run;
                for (; left >= 8; left -= 8, from += 8 * LANES, to += 8 * at.channels)
                    convolve<8>(from, wide, packed, b, to, at.channels, lanes);
                switch (left) {
                    case 7: convolve<7>(from, wide, packed, b, to, at.channels, lanes); break;
                    case 6: convolve<6>(from, wide, packed, b, to, at.channels, lanes); break;
                    case 5: convolve<5>(from, wide, packed, b, to, at.channels, lanes); break;
                    case 4: convolve<4>(from, wide, packed, b, to, at.channels, lanes); break;
                    case 3: convolve<3>(from, wide, packed, b, to, at.channels, lanes); break;
                    case 2: convolve<2>(from, wide, packed, b, to, at.channels, lanes); break;
                    case 1: convolve<1>(from, wide, packed, b, to, at.channels, lanes); break;
                }
            }
        }
    }
}

// The number of groups of images that are summed separately, so that eight threads have work for
// each LANES channels.
constexpr int64_t GROUPS = 8;

// gradient: float (50, channels). The first 49 rows are the weight's gradient, the last the bias's.
template <typename T>
void depthwise_weight(const Layout &at, const T *x, const T *gy, float *gradient, int threads) {
    const int64_t wide = at.width + 2 * RADIUS, blocks = (at.channels + LANES - 1) / LANES;
    const int64_t groups = std::min(GROUPS, at.images), size = (K * K + 1) * LANES;
    std::vector<float> partial(groups * blocks * size, 0.0f);
    Scratch canvases(threads, (at.height + 2 * RADIUS) * wide * LANES),
        gradients(threads, at.runs * at.run * LANES);
#pragma omp parallel num_threads(threads)
    {
        float *const canvas = canvases.take(), *const above = gradients.take();
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < groups * blocks; ++task) {
            const int64_t group = task / blocks, c = task % blocks * LANES;
            const int64_t lanes = std::min<int64_t>(LANES, at.channels - c);
            float *sums = partial.data() + task * size;
            for (int64_t n = at.images * group / groups; n < at.images * (group + 1) / groups;
                 ++n) {
                paint(at, x, n, c, canvas);
                vec bias = *(const vec *)(sums + K * K * LANES);
                for (int64_t i = 0; i < at.runs * at.run; ++i) {
                    const T *from = gy + (n * at.runs * at.run + i) * at.channels + c;
                    const vec here = load(from, lanes);
                    store(above + i * LANES, here);
                    bias += here;
                }
                *(vec *)(sums + K * K * LANES) = bias;
                for (int row = 0; row < K; ++row) {
                    vec s[K];
                    for (int column = 0; column < K; ++column)
                        s[column] = *(const vec *)(sums + (row * K + column) * LANES);
                    const float *g = above;
                    for (int64_t r = 0; r < at.runs; ++r) {
                        const float *from =
                            canvas + ((at.row(n, r) + row) * wide + at.column(n, r)) * LANES;
                        for (int64_t w = 0; w < at.run; ++w, g += LANES, from += LANES) {
                            const vec here = *(const vec *)g;
                            for (int column = 0; column < K; ++column)
                                s[column] += here * *(const vec *)(from + column * LANES);
                        }
                    }
                    for (int column = 0; column < K; ++column)
                        *(vec *)(sums + (row * K + column) * LANES) = s[column];
                }
            }
        }
    }
    for (int64_t k = 0; k <= K * K; ++k)
        for (int64_t c = 0; c < at.channels; ++c) {
            float sum = 0;
            for (int64_t group = 0; group < groups; ++group)
                sum += partial[(group * blocks + c / LANES) * size + k * LANES + c % LANES];
            gradient[k * at.channels + c] = sum;
        }
}

}  // namespace

#define FOR_TYPE(suffix, T)                                                                        \
    int depthwise_##suffix(const int64_t *places, int64_t images, int64_t runs, int64_t run,       \
                           int64_t height, int64_t width, int64_t channels, const void *x,         \
                           const float *weight, const float *bias, void *y, int threads) {         \
        return with_memory([&] {                                                                   \
            depthwise<T>({places, images, runs, run, height, width, channels}, (const T *)x,       \
                         weight, bias, (T *)y, threads);                                           \
        });                                                                                        \
    }                                                                                              \
    int depthwise_weight_##suffix(const int64_t *places, int64_t images, int64_t runs,             \
                                  int64_t run, int64_t height, int64_t width, int64_t channels,    \
                                  const void *x, const void *gy, float *gradient, int threads) {   \
        return with_memory([&] {                                                                   \
            depthwise_weight<T>({places, images, runs, run, height, width, channels},              \
                                (const T *)x, (const T *)gy, gradient, threads);                   \
        });                                                                                        \
    }

extern "C" {
FOR_TYPE(float, float)
FOR_TYPE(bfloat16, bfloat16)
}
