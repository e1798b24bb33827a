/* System calls that fail, put before libc by LD_PRELOAD: a full disk, a file system that became read-only, a clock that was set back.
 *
 * SARM_FAULT: full | read-only | clock. SARM_FAULT_UNDER: the folder below which full and read-only hold.
 * SARM_FAULT_AFTER: bytes (full), changes of the file system (read-only) or looks at the clock (clock) in this process before it begins.
 * SARM_FAULT_SECONDS: how far the clock goes back. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static char kind, under[PATH_MAX];
static long after, back;

__attribute__((constructor)) static void begin(void) {
    const char *name = getenv("SARM_FAULT"), *folder = getenv("SARM_FAULT_UNDER");
    const char *count = getenv("SARM_FAULT_AFTER"), *seconds = getenv("SARM_FAULT_SECONDS");
    kind = name ? name[0] : 0;
    snprintf(under, sizeof under, "%s/", folder ? folder : "/nowhere");
    after = count ? atol(count) : 0;
    back = seconds ? atol(seconds) : 0;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* Whether a path, as the call gives it, lies below the folder. */
static int inside(int folder, const char *path) {
    char whole[2 * PATH_MAX + 2], place[PATH_MAX], link[64];
    if (!path) return 0;
    if (path[0] == '/') return !strncmp(path, under, strlen(under));
    if (folder == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
    else snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    ssize_t length = readlink(link, place, sizeof place - 1);
    if (length < 0) return 0;
    place[length] = 0;
    snprintf(whole, sizeof whole, "%s/%s", place, path);
    return !strncmp(whole, under, strlen(under));
}

static int file_inside(int file) {
    char link[64], place[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, place, sizeof place - 1);
    if (length < 0) return 0;
    place[length] = 0;
    return !strncmp(place, under, strlen(under));
}

/* Whether these bytes no longer fit. */
static int full(int file, size_t bytes) {
    if (kind != 'f' || !file_inside(file)) return 0;
    if ((after -= (long)bytes) >= 0) return 0;
    errno = ENOSPC;
    return 1;
}

/* Whether this change of a path fails; `grows`: it needs room. */
static int refused(int folder, const char *path, int grows) {
    if ((kind != 'r' && !(kind == 'f' && grows)) || !inside(folder, path)) return 0;
    if (kind == 'f') {
        if (after >= 0) return 0;
        errno = ENOSPC;
        return 1;
    }
    if (after-- > 0) return 0;
    errno = EROFS;
    return 1;
}

ssize_t write(int file, const void *bytes, size_t count) { return full(file, count) ? -1 : REAL(write)(file, bytes, count); }
ssize_t pwrite(int file, const void *bytes, size_t count, off_t at) { return full(file, count) ? -1 : REAL(pwrite)(file, bytes, count, at); }
ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t at) {
    return full(file, count) ? -1 : REAL(pwrite64)(file, bytes, count, at);
}
ssize_t writev(int file, const struct iovec *parts, int count) {
    size_t bytes = 0;
    for (int part = 0; part < count; part++) bytes += parts[part].iov_len;
    return full(file, bytes) ? -1 : REAL(writev)(file, parts, count);
}
ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t count, unsigned flags) {
    return full(out, count) ? -1 : REAL(copy_file_range)(in, from, out, to, count, flags);
}
ssize_t sendfile(int out, int in, off_t *from, size_t count);
ssize_t sendfile(int out, int in, off_t *from, size_t count) { return full(out, 1) ? -1 : REAL(sendfile)(out, in, from, count); }
ssize_t sendfile64(int out, int in, off64_t *from, size_t count);
ssize_t sendfile64(int out, int in, off64_t *from, size_t count) { return full(out, 1) ? -1 : REAL(sendfile64)(out, in, from, count); }

#define WRITES(flags) ((flags) & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC))
#define MODE(flags)                       \
    mode_t mode = 0;                      \
    if ((flags) & (O_CREAT | O_TMPFILE)) { \
        va_list rest;                     \
        va_start(rest, flags);            \
        mode = va_arg(rest, mode_t);      \
        va_end(rest);                     \
    }
#define OPENS(flags) (WRITES(flags) && refused(AT_FDCWD, path, (flags) & O_CREAT))

int open(const char *path, int flags, ...) { MODE(flags) return OPENS(flags) ? -1 : REAL(open)(path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return OPENS(flags) ? -1 : REAL(open64)(path, flags, mode); }
int openat(int folder, const char *path, int flags, ...) {
    MODE(flags) return WRITES(flags) && refused(folder, path, flags & O_CREAT) ? -1 : REAL(openat)(folder, path, flags, mode);
}
int openat64(int folder, const char *path, int flags, ...) {
    MODE(flags) return WRITES(flags) && refused(folder, path, flags & O_CREAT) ? -1 : REAL(openat64)(folder, path, flags, mode);
}
int mkdir(const char *path, mode_t mode) { return refused(AT_FDCWD, path, 1) ? -1 : REAL(mkdir)(path, mode); }
int mkdirat(int folder, const char *path, mode_t mode) { return refused(folder, path, 1) ? -1 : REAL(mkdirat)(folder, path, mode); }
int rename(const char *from, const char *to) { return refused(AT_FDCWD, to, 0) ? -1 : REAL(rename)(from, to); }
int renameat(int one, const char *from, int other, const char *to) { return refused(other, to, 0) ? -1 : REAL(renameat)(one, from, other, to); }
int link(const char *from, const char *to) { return refused(AT_FDCWD, to, 1) ? -1 : REAL(link)(from, to); }
int unlink(const char *path) { return refused(AT_FDCWD, path, 0) ? -1 : REAL(unlink)(path); }
int unlinkat(int folder, const char *path, int flags) { return refused(folder, path, 0) ? -1 : REAL(unlinkat)(folder, path, flags); }
int rmdir(const char *path) { return refused(AT_FDCWD, path, 0) ? -1 : REAL(rmdir)(path); }
int chmod(const char *path, mode_t mode) { return refused(AT_FDCWD, path, 0) ? -1 : REAL(chmod)(path, mode); }
int utimensat(int folder, const char *path, const struct timespec times[2], int flags) {
    return refused(folder, path, 0) ? -1 : REAL(utimensat)(folder, path, times, flags);
}

static long shift(void) { return kind == 'c' && after-- <= 0 ? back : 0; }

int clock_gettime(clockid_t clock, struct timespec *found) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = REAL(clock_gettime);
    int result = real(clock, found);
    if (!result && clock == CLOCK_REALTIME) found->tv_sec -= shift();
    return result;
}
time_t time(time_t *told) {
    struct timespec found;
    clock_gettime(CLOCK_REALTIME, &found);
    if (told) *told = found.tv_sec;
    return found.tv_sec;
}
