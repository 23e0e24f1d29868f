// The loss and the class of every pixel, from logits of a coarser grid that are enlarged
// bilinearly, in float32 on a CPU.
//
// The enlarged logits never exist as a whole: a row of them is interpolated vertically, and each of
// its pixels horizontally, into a buffer of one pixel. Sums are added in a fixed order, whatever
// the number of threads, so runs repeat bit for bit. operations.py calls these functions through
// ctypes. It checks sizes and targets, and allocates the outputs; nothing is checked here.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "exponential.h"
#include "memory.h"

namespace {

// The logits of a pixel are padded to whole blocks, each as wide as a vector of AVX2. If logits
// are above -1e30, the padding adds exp(-87) to a sum of at least 1, which changes nothing.
constexpr int64_t LANES = 8;
constexpr float PADDING = -1e30f;

// Where a coordinate of the fine grid lies between two of the coarse one.
struct Source {
    int64_t first, second;
    float share;  // of the second
};

// Places coordinates as PyTorch's bilinear interpolation does with align_corners=False. The fine
// grid covers `extent` positions of the coarse one, which need not be a whole number.
std::vector<Source> sources(int64_t coarse, double extent, int64_t fine) {
    std::vector<Source> found(fine);
    for (int64_t i = 0; i < fine; ++i) {
        const double at = std::max(extent / double(fine) * (double(i) + 0.5) - 0.5, 0.0);
        const auto first = int64_t(std::min(at, double(coarse - 1)));
        const double share = std::min(at - double(first), 1.0);
        found[i] = {first, std::min(first + 1, coarse - 1), float(share)};
    }
    return found;
}

struct Grids {
    int64_t images, height, width, classes;  // of the logits
    int64_t rows, columns;                   // of the pixels

    std::vector<Source> vertical() const { return sources(height, double(height), rows); }
    std::vector<Source> horizontal() const { return sources(width, double(width), columns); }
    int64_t padded() const { return (classes + LANES - 1) / LANES * LANES; }
    int64_t row() const { return width * padded(); }  // floats of a row of logits, in blocks
};

// Interpolates a row of logits vertically. from: the logits of an image; row: (width, padded).
void interpolate_row(const Grids &grids, const Source &at, const float *from, float *row) {
    const int64_t size = grids.width * grids.classes;
    const float *first = from + at.first * size, *second = from + at.second * size;
    for (int64_t x = 0; x < grids.width; ++x) {
        float *to = row + x * grids.padded();
        const float *above = first + x * grids.classes, *below = second + x * grids.classes;
        for (int64_t k = 0; k < grids.classes; ++k)
            to[k] = above[k] + at.share * (below[k] - above[k]);
        std::fill(to + grids.classes, to + grids.padded(), PADDING);
    }
}

// Interpolates the logits of a pixel horizontally, and returns the largest.
inline float interpolate(const float *left, const float *right, float share, int64_t padded,
                         float *logits) {
    float most[LANES];
    std::fill(most, most + LANES, -std::numeric_limits<float>::infinity());
    for (int64_t k = 0; k < padded; k += LANES)
#pragma omp simd
        for (int64_t lane = 0; lane < LANES; ++lane) {
            const float value = left[k + lane] + share * (right[k + lane] - left[k + lane]);
            logits[k + lane] = value;
            most[lane] = std::max(most[lane], value);
        }
    return *std::max_element(most, most + LANES);
}

// Replaces logits by exp(logit - most), and returns their sum.
inline float exponentials(int64_t padded, float most, float *logits) {
    float sums[LANES] = {};
    for (int64_t k = 0; k < padded; k += LANES)
        for (int64_t lane = 0; lane < LANES; ++lane) {
            logits[k + lane] = exp_negative(logits[k + lane] - most);
            sums[lane] += logits[k + lane];
        }
    float sum = 0;
    for (float each : sums) sum += each;
    return sum;
}

// losses: (images, rows, columns), 0 where the target is negative.
void cross_entropy(const Grids &grids, const float *logits, const int64_t *targets, float *losses,
                   int threads) {
    const auto rows = grids.vertical(), columns = grids.horizontal();
    const int64_t padded = grids.padded();
    Scratch scratch(threads, grids.row() + padded);
#pragma omp parallel num_threads(threads)
    {
        float *row = scratch.take(), *pixel = row + grids.row();
#pragma omp for schedule(static)
        for (int64_t task = 0; task < grids.images * grids.rows; ++task) {
            const int64_t n = task / grids.rows, y = task % grids.rows;
            const int64_t image = grids.height * grids.width * grids.classes;
            interpolate_row(grids, rows[y], logits + n * image, row);
            for (int64_t x = 0; x < grids.columns; ++x) {
                const int64_t at = task * grids.columns + x, target = targets[at];
                losses[at] = 0;
                if (target < 0) continue;
                const Source &source = columns[x];
                const float most = interpolate(row + source.first * padded,
                                               row + source.second * padded, source.share, padded,
                                               pixel);
                const float right = pixel[target];
                losses[at] = std::log(exponentials(padded, most, pixel)) + (most - right);
            }
        }
    }
}

// to += share * from, for the rows of a gradient in blocks.
inline void add(float share, const float *from, int64_t size, float *to) {
    for (int64_t i = 0; i < size; ++i) to[i] += share * from[i];
}

// Adds the gradients of a row of pixels, with respect to the row of logits that it was interpolated
// from horizontally. weights: (columns), the gradient of each pixel's loss; row, to: (width,
// padded).
void add_row(const Grids &grids, const std::vector<Source> &columns, const int64_t *targets,
             const float *weights, const float *row, float *pixel, float *to) {
    const int64_t padded = grids.padded();
    for (int64_t x = 0; x < grids.columns; ++x) {
        if (targets[x] < 0) continue;
        const Source &source = columns[x];
        const int64_t left = source.first * padded, right = source.second * padded;
        const float most = interpolate(row + left, row + right, source.share, padded, pixel);
        const float scale = weights[x] / exponentials(padded, most, pixel);
        for (int64_t k = 0; k < padded; ++k) pixel[k] *= scale;
        pixel[targets[x]] -= weights[x];
        add(1 - source.share, pixel, padded, to + left);
        add(source.share, pixel, padded, to + right);
    }
}

// gradient: (images, height, width, classes), of the losses' sum with the given weights.
//
// A task is the rows of pixels between one row of logits and the next. They contribute to both.
// What they contribute to the next one is kept apart until all tasks are done. So no two tasks
// write to the same place, and the order of the additions is fixed.
void cross_entropy_gradient(const Grids &grids, const float *logits, const int64_t *targets,
                            const float *weights, float *gradient, int threads) {
    const auto rows = grids.vertical(), columns = grids.horizontal();
    const int64_t size = grids.width * grids.classes, image = grids.height * size;
    std::vector<float> next(grids.images * image, 0.0f);
    std::fill(gradient, gradient + grids.images * image, 0.0f);
    Scratch scratch(threads, 2 * grids.row() + grids.padded());
#pragma omp parallel num_threads(threads)
    {
        float *row = scratch.take(), *sums = row + grids.row(), *pixel = sums + grids.row();
#pragma omp for schedule(static)
        for (int64_t task = 0; task < grids.images * grids.height; ++task) {
            const int64_t n = task / grids.height, i = task % grids.height;
            const auto is_before = [](const Source &each, int64_t at) { return each.first < at; };
            const auto begin = std::lower_bound(rows.begin(), rows.end(), i, is_before);
            for (auto at = begin; at != rows.end() && at->first == i; ++at) {
                const int64_t pixels = (n * grids.rows + (at - rows.begin())) * grids.columns;
                interpolate_row(grids, *at, logits + n * image, row);
                std::fill(sums, sums + grids.row(), 0.0f);
                add_row(grids, columns, targets + pixels, weights + pixels, row, pixel, sums);
                for (int64_t x = 0; x < grids.width; ++x) {
                    const float *from = sums + x * grids.padded();
                    const int64_t to = task * size + x * grids.classes;
                    add(1 - at->share, from, grids.classes, gradient + to);
                    // The last row has no next one, and counts as its own.
                    add(at->share, from, grids.classes,
                        (at->second == i ? gradient : next.data()) + to);
                }
            }
        }
#pragma omp for schedule(static)
        for (int64_t task = 0; task < grids.images * grids.height; ++task)
            if (task % grids.height)
                add(1, next.data() + (task - 1) * size, size, gradient + task * size);
    }
}

// Returns the class of the largest logit of a pixel, the first if several are equal.
inline int16_t largest(const float *left, const float *right, float share, int64_t padded) {
    float most[LANES];
    int32_t classes[LANES];
    std::fill(most, most + LANES, PADDING);  // so that padding is never the largest
    std::fill(classes, classes + LANES, 0);
    for (int64_t k = 0; k < padded; k += LANES)
#pragma omp simd
        for (int64_t lane = 0; lane < LANES; ++lane) {
            const float value = left[k + lane] + share * (right[k + lane] - left[k + lane]);
            classes[lane] = value > most[lane] ? int32_t(k + lane) : classes[lane];
            most[lane] = value > most[lane] ? value : most[lane];
        }
    int64_t best = 0;
    for (int64_t lane = 1; lane < LANES; ++lane)
        if (most[lane] > most[best] ||
            (most[lane] == most[best] && classes[lane] < classes[best]))
            best = lane;
    return int16_t(classes[best]);
}

// found: (rows, columns), the class of every pixel of an image that covers the first `covered_rows`
// and `covered_columns` positions of the logits (height, width, classes).
void largest_class(const Grids &grids, double covered_rows, double covered_columns,
                   const float *logits, int16_t *found, int threads) {
    const auto rows = sources(grids.height, covered_rows, grids.rows),
               columns = sources(grids.width, covered_columns, grids.columns);
    const int64_t padded = grids.padded();
    Scratch scratch(threads, grids.row());
#pragma omp parallel num_threads(threads)
    {
        float *row = scratch.take();
#pragma omp for schedule(static)
        for (int64_t y = 0; y < grids.rows; ++y) {
            interpolate_row(grids, rows[y], logits, row);
            for (int64_t x = 0; x < grids.columns; ++x) {
                const float *left = row + columns[x].first * padded,
                            *right = row + columns[x].second * padded;
                found[y * grids.columns + x] = largest(left, right, columns[x].share, padded);
            }
        }
    }
}

}  // namespace

extern "C" {
int cross_entropy_float(int64_t images, int64_t height, int64_t width, int64_t classes,
                        int64_t rows, int64_t columns, const float *logits,
                        const int64_t *targets, float *losses, int threads) {
    return with_memory([&] {
        cross_entropy({images, height, width, classes, rows, columns}, logits, targets, losses,
                      threads);
    });
}
int cross_entropy_gradient_float(int64_t images, int64_t height, int64_t width, int64_t classes,
                                 int64_t rows, int64_t columns, const float *logits,
                                 const int64_t *targets, const float *weights, float *gradient,
                                 int threads) {
    return with_memory([&] {
        cross_entropy_gradient({images, height, width, classes, rows, columns}, logits, targets,
                               weights, gradient, threads);
    });
}
int largest_class_float(int64_t height, int64_t width, int64_t classes, int64_t rows,
                        int64_t columns, const double *covered, const float *logits, int16_t *found,
                        int threads) {
    return with_memory([&] {
        largest_class({1, height, width, classes, rows, columns}, covered[0], covered[1], logits,
                      found, threads);
    });
}
}
