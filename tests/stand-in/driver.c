/* A stand-in for NVIDIA's driver, for machines without a GPU: it launches nothing and computes nothing.
 *
 * Allocations are counted, and refused beyond STAND_IN_MEMORY bytes, as on a GPU. Launches are counted. Reads return made-up
 * numbers between -1 and 1. At exit the counts are appended to the file STAND_IN_LOG as one line. The program's whole host side
 * can run this way: kernels are generated and compiled (by the real compiler library, for compute capability 9.0), memory runs
 * out, and the number of waits is counted. The results of kernels cannot be tested. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { SUCCESS = 0, OUT_OF_MEMORY = 2, INVALID_DEVICE = 101 };
typedef int Result;
typedef uint64_t Pointer;

struct Allocation {
    Pointer at;
    uint64_t size;
    struct Allocation *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct Allocation *allocations;
static uint64_t total = 8ull << 30, used, peak, refused, launches, modules, written, reads, read_bytes;

static void report(void) {
    const char *path = getenv("STAND_IN_LOG");
    FILE *log = path ? fopen(path, "a") : NULL;
    if (!log) return;
    fprintf(log, "launches %lu, kernels compiled %lu, reads %lu of %lu bytes, written %lu bytes, peak %lu bytes, refused %lu\n", launches,
            modules, reads, read_bytes, written, peak, refused);
    fclose(log);
}

static void __attribute__((constructor)) begin(void) {
    const char *memory = getenv("STAND_IN_MEMORY");
    if (memory) total = strtoull(memory, NULL, 10);
    atexit(report);
}

/* The device: one, with the limits of an H100 or H200. */

Result cuInit(unsigned flags) { return SUCCESS; }
Result cuDriverGetVersion(int *version) { return *version = 13000, SUCCESS; }
Result cuDeviceGetCount(int *count) { return *count = 1, SUCCESS; }
Result cuDeviceGet(int *device, int number) { return *device = number, number == 0 ? SUCCESS : INVALID_DEVICE; }
Result cuDeviceGetName(char *name, int size, int device) { return snprintf(name, size, "a stand-in"), SUCCESS; }
Result cuDeviceGetUuid(void *id, int device) { return memset(id, 1, 16), SUCCESS; }
Result cuDeviceGetUuid_v2(void *id, int device) { return memset(id, 1, 16), SUCCESS; }
Result cuDeviceTotalMem_v2(size_t *bytes, int device) { return *bytes = total, SUCCESS; }
Result cuDeviceGetAttribute(int *value, int attribute, int device) {
    switch (attribute) {
        case 1: case 2: case 3: *value = 1024; break;           /* threads in a block, and along x and y */
        case 4: *value = 64; break;                             /* along z */
        case 5: *value = 2147483647; break;                     /* blocks along x */
        case 6: case 7: *value = 65535; break;                  /* along y and z */
        case 8: *value = 49152; break;                          /* shared memory */
        case 10: *value = 32; break;                            /* threads in a warp */
        case 16: *value = 132; break;                           /* multiprocessors */
        case 75: *value = 9; break;                             /* compute capability */
        case 76: *value = 0; break;
        case 97: *value = 232448; break;                        /* shared memory, on request */
        default: *value = 1;
    }
    return SUCCESS;
}
Result cuDevicePrimaryCtxRetain(void **context, int device) { return *context = (void *)1, SUCCESS; }
Result cuDevicePrimaryCtxRelease_v2(int device) { return SUCCESS; }
Result cuCtxSetCurrent(void *context) { return SUCCESS; }
Result cuCtxGetCurrent(void **context) { return *context = (void *)1, SUCCESS; }
Result cuCtxSynchronize(void) { return SUCCESS; }
Result cuGetErrorName(Result error, const char **name) {
    return *name = error == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR", SUCCESS;
}
Result cuGetErrorString(Result error, const char **text) {
    return *text = error == OUT_OF_MEMORY ? "out of memory" : "an error of the stand-in", SUCCESS;
}

/* Memory. */

Result cuMemGetInfo_v2(size_t *free_bytes, size_t *all) {
    pthread_mutex_lock(&lock);
    *free_bytes = total - used, *all = total;
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}
Result cuMemAlloc_v2(Pointer *at, size_t size) {
    pthread_mutex_lock(&lock);
    if (used + size > total) {
        refused++;
        pthread_mutex_unlock(&lock);
        return OUT_OF_MEMORY;
    }
    used += size;
    if (used > peak) peak = used;
    struct Allocation *new = malloc(sizeof *new);
    *at = (Pointer)mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    *new = (struct Allocation){*at, size, allocations};
    allocations = new;
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}
Result cuMemFree_v2(Pointer at) {
    pthread_mutex_lock(&lock);
    for (struct Allocation **link = &allocations; *link; link = &(*link)->next) {
        struct Allocation *gone = *link;
        if (gone->at != at) continue;
        used -= gone->size;
        munmap((void *)gone->at, gone->size);
        *link = gone->next;
        free(gone);
        break;
    }
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}
Result cuMemAllocAsync(Pointer *at, size_t size, void *stream) { return cuMemAlloc_v2(at, size); }
Result cuMemFreeAsync(Pointer at, void *stream) { return cuMemFree_v2(at); }
Result cuMemAllocHost_v2(void **at, size_t size) { return *at = malloc(size), *at ? SUCCESS : OUT_OF_MEMORY; }
Result cuMemFreeHost(void *at) { return free(at), SUCCESS; }

static void make_up(void *to, size_t size) {
    static uint64_t state = 88172645463325252ull;
    for (size_t i = 0; i + 4 <= size; i += 4) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        float number = (float)(int32_t)(state >> 32) / 2147483648.0f;
        memcpy((char *)to + i, &number, 4);
    }
}
Result cuMemcpyHtoDAsync_v2(Pointer to, const void *from, size_t size, void *stream) {
    written += size;
    return memcpy((void *)to, from, size), SUCCESS;
}
Result cuMemcpyDtoHAsync_v2(void *to, Pointer from, size_t size, void *stream) {
    reads++, read_bytes += size;
    return make_up(to, size), SUCCESS;
}
struct Copy {
    size_t from_x, from_y;
    int from_kind;
    const void *from_host;
    Pointer from_device;
    void *from_array;
    size_t from_pitch, to_x, to_y;
    int to_kind;
    void *to_host;
    Pointer to_device;
    void *to_array;
    size_t to_pitch, width, height;
};
Result cuMemcpy2DAsync_v2(const struct Copy *copy, void *stream) {
    enum { HOST = 1 };
    if (copy->to_kind != HOST) return written += copy->width * copy->height, SUCCESS;
    reads++, read_bytes += copy->width * copy->height;
    for (size_t row = 0; row < copy->height; row++) make_up((char *)copy->to_host + row * copy->to_pitch, copy->width);
    return SUCCESS;
}

/* Streams and events: all work finishes immediately. */

Result cuStreamCreate(void **stream, unsigned flags) {
    static uintptr_t last = 16;
    return *stream = (void *)(last += 16), SUCCESS;
}
Result cuStreamDestroy_v2(void *stream) { return SUCCESS; }
Result cuStreamSynchronize(void *stream) { return SUCCESS; }
Result cuStreamWaitEvent(void *stream, void *event, unsigned flags) { return SUCCESS; }
Result cuEventCreate(void **event, unsigned flags) { return *event = (void *)16, SUCCESS; }
Result cuEventRecord(void *event, void *stream) { return SUCCESS; }
Result cuEventSynchronize(void *event) { return SUCCESS; }
Result cuEventDestroy_v2(void *event) { return SUCCESS; }

/* Kernels. */

Result cuModuleLoadData(void **module, const void *image) { return modules++, *module = (void *)32, SUCCESS; }
Result cuModuleUnload(void *module) { return SUCCESS; }
Result cuModuleGetFunction(void **function, void *module, const char *name) { return *function = (void *)48, SUCCESS; }
Result cuFuncSetAttribute(void *function, int attribute, int value) { return SUCCESS; }
Result cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                      void *stream, void **parameters, void **extra) {
    return __sync_fetch_and_add(&launches, 1), SUCCESS;
}
Result cuTensorMapEncodeTiled(void *map, ...) { return SUCCESS; }
