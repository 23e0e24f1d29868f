// If there is not enough memory, a kernel reports it, and the process continues.

#pragma once

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace {

// Does some work. Returns 0, or 1 if there was not enough memory. An exception must not leave a
// parallel region, so all memory is taken outside of these.
template <typename Work>
int with_memory(Work work) {
    try {
        work();
    } catch (const std::bad_alloc &) {
        return 1;
    }
    return 0;
}

// Room for floats for each of several threads, in which no vector lies across two cache lines.
class Scratch {
  public:
    Scratch(int threads, int64_t size)
        : stride((size + 15) / 16 * 16),
          data((float *)std::aligned_alloc(64, threads * stride * sizeof(float))) {
        if (!data) throw std::bad_alloc();
    }
    Scratch(const Scratch &) = delete;
    ~Scratch() { std::free(data); }
    // Each thread calls this once.
    float *take() { return data + stride * taken++; }

  private:
    const int64_t stride;
    float *const data;
    std::atomic<int64_t> taken{0};
};

}  // namespace
