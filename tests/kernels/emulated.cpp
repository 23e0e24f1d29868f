// Calls a function of a library with arguments from a file, in a process of its own. Under an
// emulator, the library may be one for another machine.
//
//     emulated LIBRARY FUNCTION THREADS FILE
//
// FILE has one record for each argument: int64 kind, int64 value, and for kind 1 that many bytes.
// Kind 0 is a number, 1 memory, 2 no memory. After the call, the memory is written back.

#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

struct Argument {
    int64_t kind, value;
    std::vector<char> bytes;
};

int main(int, char **argv) {
    void *library = dlopen(argv[1], RTLD_NOW);
    if (!library) return fprintf(stderr, "%s\n", dlerror()), 1;
    void *function = dlsym(library, argv[2]);
    if (!function) return fprintf(stderr, "%s\n", dlerror()), 1;

    FILE *file = fopen(argv[4], "rb");
    std::vector<Argument> arguments;
    for (Argument next; fread(&next.kind, 8, 2, file) == 2; arguments.push_back(next)) {
        next.bytes.resize(next.kind == 1 ? next.value : 0);
        if (fread(next.bytes.data(), 1, next.bytes.size(), file) != next.bytes.size()) return 2;
    }
    fclose(file);

    // Numbers and addresses are passed alike, and the number of threads after them.
    int64_t words[16] = {};
    size_t count = 0;
    for (Argument &each : arguments)
        words[count++] = each.kind == 1 ? (int64_t)each.bytes.data() : each.kind ? 0 : each.value;
    words[count] = atoi(argv[3]);
    using Words = void (*)(int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t,
                           int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t);
    ((Words)function)(words[0], words[1], words[2], words[3], words[4], words[5], words[6],
                      words[7], words[8], words[9], words[10], words[11], words[12], words[13],
                      words[14], words[15]);

    file = fopen(argv[4], "wb");
    for (const Argument &each : arguments) fwrite(each.bytes.data(), 1, each.bytes.size(), file);
    return fclose(file);
}
