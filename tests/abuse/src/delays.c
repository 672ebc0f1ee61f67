// Loaded before libc (LD_PRELOAD) into a process under test: makes its file operations slow, as on
// a busy file server, and lets its clock run backwards.
//
// FAULT_DELAY_US: longest delay of one operation in microseconds. FAULT_CLOCK: any value turns the
// clock of the day around.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static int is_backwards(void) { return getenv("FAULT_CLOCK") != NULL; }

static void delay(void) {
  const char *longest = getenv("FAULT_DELAY_US");
  if (longest != NULL && atoi(longest) > 0) {
    usleep((unsigned)random() % (unsigned)atoi(longest));
  }
}

#define NEXT(result, name, ...) \
  static result (*next)(__VA_ARGS__); \
  if (next == NULL) next = (result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

ssize_t write(int file, const void *bytes, size_t count) {
  NEXT(ssize_t, "write", int, const void *, size_t);
  if (file > 2) delay();
  return next(file, bytes, count);
}

int fsync(int file) {
  NEXT(int, "fsync", int);
  delay();
  return next(file);
}

int fdatasync(int file) {
  NEXT(int, "fdatasync", int);
  delay();
  return next(file);
}

int rename(const char *from, const char *to) {
  NEXT(int, "rename", const char *, const char *);
  delay();
  return next(from, to);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
  NEXT(int, "clock_gettime", clockid_t, struct timespec *);
  static struct timespec first;
  int result = next(clock, time);
  if (clock == CLOCK_REALTIME && is_backwards()) {
    if (first.tv_sec == 0) first = *time;
    // An hour before the start, and one more second back for each that passes.
    time->tv_sec = 2 * first.tv_sec - time->tv_sec - 3600;
  }
  return result;
}
