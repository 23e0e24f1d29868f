// The depthwise convolution and GELU + GRN of ConvNeXt V2 on a CPU, forward and backward, for float32 and bfloat16 activations.
//
// Each result is a sum in a fixed order, whatever the number of threads: runs repeat bit for bit on any number of cores.
// Sums are float32. Called through ctypes from native.py, which checks sizes and places, casts weights to float32 and allocates
// every output. Nothing is checked here.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

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

struct bfloat16 {
    uint16_t bits;
};

inline float to_float(float x) { return x; }
inline float to_float(bfloat16 x) {
    uint32_t bits = uint32_t(x.bits) << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}
inline void put(float &at, float x) { at = x; }
inline void put(bfloat16 &at, float x) {  // to nearest, ties to even; the high bits of a NaN stay a NaN
    uint32_t bits;
    memcpy(&bits, &x, 4);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    at.bits = uint16_t((bits & 0x7fffffff) > 0x7f800000 ? (bits >> 16) | 0x40 : rounded);
}

// LANES neighbours at once.
inline vec load(const float *from) { return *(const vec *)from; }
inline vec load(const bfloat16 *from) { return (vec)(__builtin_convertvector(*(const bits16 *)from, bits32) << 16); }
inline void store(float *to, vec x) { *(vec *)to = x; }
inline void store(bfloat16 *to, vec x) {  // as `put`
    const bits32 bits = (bits32)x, rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    *(bits16 *)to = __builtin_convertvector((bits & 0x7fffffff) > 0x7f800000 ? (bits >> 16) | 0x40 : rounded, bits16);
}
// Or the first of them only; where they are loaded, the others are 0.
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

// Room for floats where no vector lies across two cache lines.
struct Floats {
    explicit Floats(int64_t size) : data((float *)std::aligned_alloc(64, (size * sizeof(float) + 63) / 64 * 64)) {
        if (!data) std::abort();
    }
    Floats(const Floats &) = delete;
    ~Floats() { std::free(data); }
    float *const data;
};

// ---------------------------------------------------------------- depthwise convolution

// Where the given positions lie. They come in runs of `run` neighbours in a row; run r of image n starts at place
// places[n * runs + r], counted in runs over the images' canvases one after the other. Without places, every run of the canvas is
// given, in order.
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

// One image's given positions of LANES channels from `c` on, on a canvas of zeros with a border of RADIUS.
template <typename T>
void paint(const Layout &at, const T *x, int64_t n, int64_t c, float *canvas) {
    const int64_t wide = at.width + 2 * RADIUS, lanes = std::min<int64_t>(LANES, at.channels - c);
    memset(canvas, 0, sizeof(float) * (at.height + 2 * RADIUS) * wide * LANES);
    for (int64_t r = 0; r < at.runs; ++r) {
        float *to = canvas + ((at.row(n, r) + RADIUS) * wide + at.column(n, r) + RADIUS) * LANES;
        const T *from = x + (n * at.runs + r) * at.run * at.channels + c;
        for (int64_t w = 0; w < at.run; ++w) store(to + w * LANES, load(from + w * at.channels, lanes));
    }
}

// N neighbouring outputs; `from` is the canvas at the upper left of the first one's window.
template <int N, typename T>
void convolve(const float *from, int64_t wide, const float *weight, vec bias, T *to, int64_t channels, int64_t lanes) {
    vec sums[N];
    for (int i = 0; i < N; ++i) sums[i] = bias;
    for (int row = 0; row < K; ++row)
        for (int column = 0; column < K; ++column) {
            vec w = *(const vec *)(weight + (row * K + column) * LANES);
            for (int i = 0; i < N; ++i) sums[i] += w * *(const vec *)(from + (row * wide + column + i) * LANES);
        }
    for (int i = 0; i < N; ++i) store(to + i * channels, sums[i], lanes);
}

// weight: float (49, channels).
template <typename T>
void depthwise(const Layout &at, const T *x, const float *weight, const float *bias, T *y, int threads) {
    const int64_t wide = at.width + 2 * RADIUS, blocks = (at.channels + LANES - 1) / LANES;
    const int64_t tasks = at.images * blocks;
#pragma omp parallel num_threads(threads)
    {
        const Floats canvas((at.height + 2 * RADIUS) * wide * LANES);
        alignas(64) float packed[K * K * LANES], start[LANES];
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < tasks; ++task) {
            const int64_t n = task / blocks, c = task % blocks * LANES;
            const int64_t lanes = std::min<int64_t>(LANES, at.channels - c);
            for (int k = 0; k < K * K; ++k)
                for (int64_t l = 0; l < LANES; ++l) packed[k * LANES + l] = l < lanes ? weight[k * at.channels + c + l] : 0;
            for (int64_t l = 0; l < LANES; ++l) start[l] = bias && l < lanes ? bias[c + l] : 0;
            const vec b = *(const vec *)start;
            paint(at, x, n, c, canvas.data);
            for (int64_t r = 0; r < at.runs; ++r) {
                const float *from = canvas.data + (at.row(n, r) * wide + at.column(n, r)) * LANES;
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

constexpr int64_t GROUPS = 8;  // of images, each summed by itself: work for eight threads per LANES channels

// gradient: float (50, channels), of the weight and, last, of the bias.
template <typename T>
void depthwise_weight(const Layout &at, const T *x, const T *gy, float *gradient, int threads) {
    const int64_t wide = at.width + 2 * RADIUS, blocks = (at.channels + LANES - 1) / LANES;
    const int64_t groups = std::min(GROUPS, at.images), size = (K * K + 1) * LANES;
    std::vector<float> partial(groups * blocks * size, 0.0f);
#pragma omp parallel num_threads(threads)
    {
        const Floats canvas((at.height + 2 * RADIUS) * wide * LANES), above(at.runs * at.run * LANES);
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < groups * blocks; ++task) {
            const int64_t group = task / blocks, c = task % blocks * LANES;
            const int64_t lanes = std::min<int64_t>(LANES, at.channels - c);
            float *sums = partial.data() + task * size;
            for (int64_t n = at.images * group / groups; n < at.images * (group + 1) / groups; ++n) {
                paint(at, x, n, c, canvas.data);
                vec bias = *(const vec *)(sums + K * K * LANES);
                for (int64_t i = 0; i < at.runs * at.run; ++i) {
                    const T *from = gy + (n * at.runs * at.run + i) * at.channels + c;
                    const vec here = load(from, lanes);
                    store(above.data + i * LANES, here);
                    bias += here;
                }
                *(vec *)(sums + K * K * LANES) = bias;
                for (int row = 0; row < K; ++row) {
                    vec s[K];
                    for (int column = 0; column < K; ++column) s[column] = *(const vec *)(sums + (row * K + column) * LANES);
                    const float *g = above.data;
                    for (int64_t r = 0; r < at.runs; ++r) {
                        const float *from = canvas.data + ((at.row(n, r) + row) * wide + at.column(n, r)) * LANES;
                        for (int64_t w = 0; w < at.run; ++w, g += LANES, from += LANES) {
                            const vec here = *(const vec *)g;
                            for (int column = 0; column < K; ++column) s[column] += here * *(const vec *)(from + column * LANES);
                        }
                    }
                    for (int column = 0; column < K; ++column) *(vec *)(sums + (row * K + column) * LANES) = s[column];
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

// ---------------------------------------------------------------- GELU and GRN

// exp(x) for x <= 0, to 2 units in the last place; below -87 it is 0 within 1e-38.
inline float exp_negative(float x) {
    x = std::max(x, -87.0f);
    const float n = std::floor(x * 1.44269504f + 0.5f);
    const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts
    float p = 1 + r * (1 + r * (0.5f + r * (1.6666667e-1f + r * (4.1666668e-2f + r * (8.3333340e-3f + r * 1.3888889e-3f)))));
    uint32_t bits = uint32_t(int32_t(n) + 127) << 23;
    float power;
    memcpy(&power, &bits, 4);
    return p * power;
}

// GELU and its derivative. Exact: x * Phi(x), with erf from Abramowitz and Stegun 7.1.26 (error below 1.5e-7).
// Tanh: 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))).
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
        const float poly = t * (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
        const float tail = 0.5f * poly * e;  // 1 - Phi(|x|)
        const float phi = x < 0 ? tail : 1 - tail;
        value = x * phi;
        slope = phi + x * 0.39894228f * e;
    }
}

// GELU alone. Exact: 1 - Phi(a) = 1/2 - a p(a^2), with p of degree 14 fitted so that the largest error of Phi is least: 1.3e-8 up to
// a = 5.2, beyond which 1e-7 is missing; of float32 arithmetic 1.5e-7.
template <bool TANH>
inline float gelu(float x) {
    if (TANH) {
        float value, slope;
        gelu<true>(x, value, slope);
        return value;
    }
    const float a = std::fabs(x), t = x * x * 0.0739644970f - 1;  // from -1 at 0 to 1 at 5.2
    float p = 2.023896718e-4f;
    for (float next : {-5.622903399e-4f, 6.007602326e-4f, -9.785158405e-4f, 2.662441927e-3f, -5.067367773e-3f, 8.010089950e-3f,
                       -1.235335957e-2f, 1.813392262e-2f, -2.476344965e-2f, 3.196232313e-2f, -3.992539750e-2f, 5.002610991e-2f,
                       -6.774380557e-2f, 1.359499782e-1f})
        p = p * t + next;
    const float tail = a > 5.2f ? 0 : 0.5f - a * p;
    return x * (x < 0 ? tail : 1 - tail);
}

constexpr int64_t CHUNK = 64;  // positions that are summed by themselves

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

// Adds up the chunks of each image: partial (images, chunks, columns) to sums (images, columns).
void add_chunks(const std::vector<float> &partial, int64_t images, int64_t chunks, int64_t columns, float *sums, int threads) {
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

// sums: (images, channels), of gelu(x)^2 over the positions.
template <bool TANH, typename T>
void gelu_squares(int64_t images, int64_t positions, int64_t channels, const T *x, float *sums, int threads) {
    const int64_t chunks = (positions + CHUNK - 1) / CHUNK;
    std::vector<float> partial(images * chunks * channels, 0.0f);
    for_chunks(images, positions, threads, [&](int64_t n, int64_t first, int64_t count, int64_t chunk) {
        float *to = partial.data() + (n * chunks + chunk) * channels;
        for (int64_t p = first; p < first + count; ++p) {
            const T *from = x + (n * positions + p) * channels;
            for (int64_t c = 0; c < channels; ++c) {
                const float value = gelu<TANH>(to_float(from[c]));
                to[c] += value * value;
            }
        }
    });
    add_chunks(partial, images, chunks, channels, sums, threads);
}

// sums: (images, channels), of x^2 over the positions.
template <typename T>
void squares(int64_t images, int64_t positions, int64_t channels, const T *x, float *sums, int threads) {
    const int64_t chunks = (positions + CHUNK - 1) / CHUNK;
    std::vector<float> partial(images * chunks * channels, 0.0f);
    for_chunks(images, positions, threads, [&](int64_t n, int64_t first, int64_t count, int64_t chunk) {
        float *to = partial.data() + (n * chunks + chunk) * channels;
        for (int64_t p = first; p < first + count; ++p) {
            const T *from = x + (n * positions + p) * channels;
            for (int64_t c = 0; c < channels; ++c) to[c] += to_float(from[c]) * to_float(from[c]);
        }
    });
    add_chunks(partial, images, chunks, channels, sums, threads);
}

// y = gelu(x) * scale + shift, with scale (images, channels) and shift (channels).
template <bool TANH, typename T>
void gelu_scale(int64_t images, int64_t positions, int64_t channels, const T *x, const float *scale, const float *shift, T *y,
                int threads) {
    for_chunks(images, positions, threads, [&](int64_t n, int64_t first, int64_t count, int64_t) {
        const float *by = scale + n * channels;
        for (int64_t p = first; p < first + count; ++p) {
            const T *from = x + (n * positions + p) * channels;
            T *to = y + (n * positions + p) * channels;
            for (int64_t c = 0; c < channels; ++c) put(to[c], gelu<TANH>(to_float(from[c])) * by[c] + shift[c]);
        }
    });
}

// sums: (images, 2, channels), of gy * gelu(x) and of gy.
template <bool TANH, typename T>
void gelu_products(int64_t images, int64_t positions, int64_t channels, const T *x, const T *gy, float *sums, int threads) {
    const int64_t chunks = (positions + CHUNK - 1) / CHUNK;
    std::vector<float> partial(images * chunks * 2 * channels, 0.0f);
    for_chunks(images, positions, threads, [&](int64_t n, int64_t first, int64_t count, int64_t chunk) {
        float *products = partial.data() + (n * chunks + chunk) * 2 * channels, *plain = products + channels;
        for (int64_t p = first; p < first + count; ++p) {
            const T *from = x + (n * positions + p) * channels, *g = gy + (n * positions + p) * channels;
            for (int64_t c = 0; c < channels; ++c) {
                products[c] += to_float(g[c]) * gelu<TANH>(to_float(from[c]));
                plain[c] += to_float(g[c]);
            }
        }
    });
    add_chunks(partial, images, chunks, 2 * channels, sums, threads);
}

// gx = (gy * scale + pull * gelu(x)) * gelu'(x), with scale and pull (images, channels).
template <bool TANH, typename T>
void gelu_backward(int64_t images, int64_t positions, int64_t channels, const T *x, const T *gy, const float *scale,
                   const float *pull, T *gx, int threads) {
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

// ---------------------------------------------------------------- pixels

// (x - mean) / std of uint8 (pixels, channels), which is channels-last, in one pass.
void normalise(const uint8_t *x, int64_t pixels, int64_t channels, const float *mean, const float *std, float *y, int threads) {
    constexpr int64_t STRIP = 1024;
    const int64_t strips = (pixels + STRIP - 1) / STRIP;
#pragma omp parallel num_threads(threads)
    {
        // A strip of pixels at a time, with the moments laid out as its pixels are, so that the loop is plain.
        std::vector<float> means(STRIP * channels), stds(STRIP * channels);
        for (int64_t i = 0; i < STRIP * channels; ++i) means[i] = mean[i % channels], stds[i] = std[i % channels];
#pragma omp for schedule(static)
        for (int64_t strip = 0; strip < strips; ++strip) {
            const int64_t first = strip * STRIP * channels, count = std::min(STRIP, pixels - strip * STRIP) * channels;
            for (int64_t i = 0; i < count; ++i) y[first + i] = (float(x[first + i]) - means[i]) / stds[i];
        }
    }
}

// ---------------------------------------------------------------- warp

// The weights of four neighbours at a distance of 1 + d, d, 1 - d and 2 - d. Bicubic as in Pillow: cubic convolution with a = -1.
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

inline uint8_t level(float x) { return uint8_t(std::clamp(x + 1e-4f, 0.0f, 255.0f)); }  // cut off, as Pillow does

// An affine transform of uint8 (height, width, C) to the same size, as Pillow's: output pixel (x, y) shows what lies at
// (a x + b y + c, d x + e y + f), measured at the pixels' centres; from outside comes `fill`.
template <int C>
void warp(const uint8_t *image, int64_t height, int64_t width, const double *m, bool bicubic, const uint8_t *fill, uint8_t *out) {
    // A shear along x, or a shift: the weights hold for a whole row, which is then a sum of shifted rows.
    const bool by_rows = m[0] == 1 && m[3] == 0 && m[4] == 1;
    std::vector<float> sums(width * C);
    // Else each pixel looks at 4 x 4 others: of four floats each, so that two fill a register, and with two more at every edge, so
    // that none has to be looked for.
    typedef float eight __attribute__((vector_size(32)));
    const int64_t wide = width + 4;
    std::unique_ptr<float[]> padded(new float[by_rows ? 0 : (height + 4) * wide * 4]);
    for (int64_t y = 0; y < height + 4 && !by_rows; ++y)
        for (int64_t x = 0; x < wide; ++x) {
            const int64_t row = std::clamp<int64_t>(y - 2, 0, height - 1), column = std::clamp<int64_t>(x - 2, 0, width - 1);
            for (int k = 0; k < 4; ++k) padded[(y * wide + x) * 4 + k] = image[(row * width + column) * C + k % C];
        }
    for (int64_t y = 0; y < height; ++y, out += width * C) {
        float wx[4], wy[4];
        if (by_rows) {
            const double shift = m[1] * (y + 0.5) + m[2], at_y = y + m[5];
            const int64_t first = int64_t(std::floor(shift)), top = int64_t(std::floor(at_y));
            // Where x + 0.5 + shift is inside, as in the general case.
            int64_t from = std::max<int64_t>(0, int64_t(std::ceil(-shift - 0.5))), to = width;
            while (to > from && !(to - 1 + 0.5 + shift < width)) --to;
            if (!(at_y + 0.5 >= 0 && at_y + 0.5 < height) || to <= from) from = to = 0;
            neighbours(float(shift - first), bicubic, wx);
            neighbours(float(at_y - top), bicubic, wy);
            std::fill(sums.begin(), sums.end(), 0.0f);
            for (int i = 0; i < 4; ++i) {
                const uint8_t *row = image + std::clamp<int64_t>(top + i - 1, 0, height - 1) * width * C;
                for (int j = 0; j < 4; ++j) {
                    const float w = wy[i] * wx[j];
                    if (w == 0) continue;
                    const int64_t offset = first + j - 1;
                    const int64_t inside = std::clamp<int64_t>(-offset, from, to);
                    const int64_t beyond = std::clamp<int64_t>(width - offset, inside, to);
                    for (int64_t x = from; x < inside; ++x)
                        for (int k = 0; k < C; ++k) sums[x * C + k] += w * row[k];
                    for (int64_t n = inside * C; n < beyond * C; ++n) sums[n] += w * row[n + offset * C];
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
            const int64_t left = int64_t(at_x + 1) - 1, top = int64_t(at_y + 1) - 1;  // floor: neither is below -1
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

#define FOR_TYPE(suffix, T)                                                                                                    \
    void depthwise_##suffix(const int64_t *places, int64_t images, int64_t runs, int64_t run, int64_t height, int64_t width,    \
                            int64_t channels, const void *x, const float *weight, const float *bias, void *y, int threads) {    \
        depthwise<T>({places, images, runs, run, height, width, channels}, (const T *)x, weight, bias, (T *)y, threads);        \
    }                                                                                                                           \
    void depthwise_weight_##suffix(const int64_t *places, int64_t images, int64_t runs, int64_t run, int64_t height,            \
                                   int64_t width, int64_t channels, const void *x, const void *gy, float *gradient,             \
                                   int threads) {                                                                               \
        depthwise_weight<T>({places, images, runs, run, height, width, channels}, (const T *)x, (const T *)gy, gradient,        \
                            threads);                                                                                           \
    }                                                                                                                           \
    void gelu_squares_##suffix(int tanh, int64_t n, int64_t p, int64_t c, const void *x, float *sums, int threads) {            \
        (tanh ? gelu_squares<true, T> : gelu_squares<false, T>)(n, p, c, (const T *)x, sums, threads);                          \
    }                                                                                                                           \
    void squares_##suffix(int64_t n, int64_t p, int64_t c, const void *x, float *sums, int threads) {                           \
        squares<T>(n, p, c, (const T *)x, sums, threads);                                                                       \
    }                                                                                                                           \
    void gelu_scale_##suffix(int tanh, int64_t n, int64_t p, int64_t c, const void *x, const float *scale, const float *shift,  \
                             void *y, int threads) {                                                                            \
        (tanh ? gelu_scale<true, T> : gelu_scale<false, T>)(n, p, c, (const T *)x, scale, shift, (T *)y, threads);              \
    }                                                                                                                           \
    void gelu_products_##suffix(int tanh, int64_t n, int64_t p, int64_t c, const void *x, const void *gy, float *sums,          \
                                int threads) {                                                                                  \
        (tanh ? gelu_products<true, T> : gelu_products<false, T>)(n, p, c, (const T *)x, (const T *)gy, sums, threads);         \
    }                                                                                                                           \
    void gelu_backward_##suffix(int tanh, int64_t n, int64_t p, int64_t c, const void *x, const void *gy, const float *scale,   \
                                const float *pull, void *gx, int threads) {                                                     \
        (tanh ? gelu_backward<true, T> : gelu_backward<false, T>)(n, p, c, (const T *)x, (const T *)gy, scale, pull, (T *)gx,   \
                                                                  threads);                                                     \
    }

extern "C" {
FOR_TYPE(float, float)
FOR_TYPE(bfloat16, bfloat16)

void normalise_uint8(const void *x, int64_t pixels, int64_t channels, const float *mean, const float *std, float *y, int threads) {
    normalise((const uint8_t *)x, pixels, channels, mean, std, y, threads);
}

void warp_uint8(const void *image, int64_t height, int64_t width, int64_t channels, const double *matrix, int64_t bicubic,
                const uint8_t *fill, void *out, int) {
    (channels == 1 ? warp<1> : warp<3>)((const uint8_t *)image, height, width, matrix, bicubic, fill, (uint8_t *)out);
}
}
