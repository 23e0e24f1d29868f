// The exponential function of numbers that are not above 0, in a form that compilers vectorise.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

// Computes exp(x) for x <= 0, to 2 units in the last place. Below -87 it is 0 within 1e-38.
inline float exp_negative(float x) {
    x = std::max(x, -87.0f);
    const float n = std::floor(x * 1.44269504f + 0.5f);
    const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts
    float p =
        1 +
        r * (1 + r * (0.5f + r * (1.6666667e-1f +
                                  r * (4.1666668e-2f + r * (8.3333340e-3f + r * 1.3888889e-3f)))));
    uint32_t bits = uint32_t(int32_t(n) + 127) << 23;
    float power;
    memcpy(&power, &bits, 4);
    return p * power;
}

}  // namespace
