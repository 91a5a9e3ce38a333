// A disk and a wall clock that misbehave on command, below one process. Loaded by LD_PRELOAD; `faulty.rs` is the other side.
//
// Watched are the files whose path begins with TOWPATH_FAULTY_FILES: calls on them are delayed, refused, cut short, or done.
// What is done to them is written to a journal first, from which `power.rs` works out what a power cut may leave. The index
// of SQLite's log (`-shm`) is memory: it fails like the others, and is in no journal.
//
// Not seen: writes to a mapping (`power.rs` compares each file with its journal, and would notice), calls within libc, and a
// wait of the kernel until a time of the wall clock. Towpath does none of these with what is watched.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

// As `Settings::words` writes them: every fault's odds of 1000, then the rest.
struct settings {
    uint64_t no_space, write_error, short_write, sync_error;
    uint64_t slow_sync_ms, lie_about_sync;
    int64_t clock_step_s;
    uint64_t seed;
};

struct control {
    // Which of the two counts. The other side fills the other one and then changes this, one byte: nobody reads half of one.
    volatile uint8_t active;
    uint8_t unused[7];
    struct settings settings[2];
    // Written here, read there.
    _Atomic uint64_t faults;
};

enum kind { WRITE = 1, LENGTH, REMOVED, SYNC_BEGUN, SYNCED, SYNC_FAILED };

struct record {
    uint32_t kind, name_bytes;
    uint64_t at;    // LENGTH: the length. SYNC…: a number, the same at the begin and the end.
    uint64_t bytes; // of WRITE's data, which follow the name
};

#define FDS 4096
static char *watched[FDS]; // what of a watched file's path follows the prefix
static struct control *control;
static char *prefix;
static int journal = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; // over a call and its record, so that the journal has the calls' order
static int (*real_clock)(clockid_t, struct timespec *);

__attribute__((noreturn)) static void give_up(const char *what)
{
    dprintf(2, "the faulty disk: %s: %s\n", what, strerror(errno));
    abort();
}

__attribute__((constructor)) static void start(void)
{
    real_clock = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    prefix = getenv("TOWPATH_FAULTY_FILES");
    const char *control_path = getenv("TOWPATH_FAULTY_CONTROL"), *journal_path = getenv("TOWPATH_FAULTY_JOURNAL");
    if (!prefix || !control_path || !journal_path)
        return;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, control_path, O_RDWR | O_CLOEXEC);
    void *mapped = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED)
        give_up(control_path);
    syscall(SYS_close, fd);
    journal = (int)syscall(SYS_openat, AT_FDCWD, journal_path, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (journal < 0)
        give_up(journal_path);
    control = mapped;
}

static const struct settings *now(void)
{
    return &control->settings[control->active & 1];
}

// Under the lock. The same seed gives the same numbers, from the start of the process or from when it was set.
static uint64_t random_number(void)
{
    static uint64_t seed, state;
    if (state == 0 || seed != now()->seed) {
        seed = now()->seed;
        state = (seed + 1) * 0x9e3779b97f4a7c15u | 1;
    }
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state >> 11;
}

static bool strikes(uint64_t odds)
{
    bool it_does = odds > 0 && random_number() % 1000 < odds;
    if (it_does)
        atomic_fetch_add(&control->faults, 1);
    return it_does;
}

static void note(enum kind kind, const char *name, uint64_t at, const void *data, size_t bytes)
{
    if (strcmp(name, "-shm") == 0)
        return;
    struct record record = {kind, (uint32_t)strlen(name), at, bytes};
    struct iovec parts[] = {{&record, sizeof record}, {(void *)name, record.name_bytes}, {(void *)data, bytes}};
    ssize_t all = (ssize_t)(sizeof record + record.name_bytes + bytes);
    if (syscall(SYS_writev, journal, parts, data ? 3 : 2) != all)
        give_up("writing the journal");
}

// What of an open file's path follows the prefix; NULL when the file is not watched. To be freed.
static char *name_of(int fd)
{
    char link[40], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    if (!control || length < 0)
        return NULL;
    path[length] = 0;
    return strncmp(path, prefix, strlen(prefix)) == 0 ? strdup(path + strlen(prefix)) : NULL;
}

static const char *watched_name(int fd)
{
    return fd >= 0 && fd < FDS ? watched[fd] : NULL;
}

static void forget(int fd)
{
    if (fd >= 0 && fd < FDS) {
        free(watched[fd]);
        watched[fd] = NULL;
    }
}

static int opened(int fd, int flags)
{
    if (fd < 0 || !control)
        return fd;
    forget(fd);
    char *name = name_of(fd);
    if (name && fd >= FDS) {
        errno = EMFILE;
        give_up("too many open files");
    }
    if (!name)
        return fd;
    watched[fd] = name;
    if (flags & O_TRUNC) {
        pthread_mutex_lock(&lock);
        note(LENGTH, name, 0, NULL, 0);
        pthread_mutex_unlock(&lock);
    }
    return fd;
}

static int open_it(int folder, const char *path, int flags, mode_t mode)
{
    return opened((int)syscall(SYS_openat, folder, path, flags, mode), flags);
}

#define MODE(flags)                 \
    mode_t mode = 0;                \
    if (__OPEN_NEEDS_MODE(flags)) { \
        va_list rest;               \
        va_start(rest, flags);      \
        mode = va_arg(rest, mode_t);\
        va_end(rest);               \
    }

int open(const char *path, int flags, ...)
{
    MODE(flags)
    return open_it(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    MODE(flags)
    return open_it(AT_FDCWD, path, flags, mode);
}

int openat(int folder, const char *path, int flags, ...)
{
    MODE(flags)
    return open_it(folder, path, flags, mode);
}

int openat64(int folder, const char *path, int flags, ...)
{
    MODE(flags)
    return open_it(folder, path, flags, mode);
}

int close(int fd)
{
    forget(fd);
    return (int)syscall(SYS_close, fd);
}

int unlink(const char *path)
{
    int fd = control ? (int)syscall(SYS_openat, AT_FDCWD, path, O_PATH | O_NOFOLLOW | O_CLOEXEC) : -1;
    char *name = fd < 0 ? NULL : name_of(fd);
    if (fd >= 0)
        syscall(SYS_close, fd);
    pthread_mutex_lock(&lock);
    if (name)
        note(REMOVED, name, 0, NULL, 0);
    int result = (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    int error = errno;
    pthread_mutex_unlock(&lock);
    free(name);
    errno = error;
    return result;
}

static uint64_t length_of(int fd)
{
    struct stat stat;
    if (fstat(fd, &stat) != 0)
        give_up("fstat");
    return (uint64_t)stat.st_size;
}

static ssize_t really_write(int fd, const char *name, const void *data, size_t bytes, uint64_t at, bool in_sequence)
{
    note(WRITE, name, at, data, bytes);
    ssize_t done = in_sequence ? syscall(SYS_write, fd, data, bytes) : syscall(SYS_pwrite64, fd, data, bytes, at);
    if (done != (ssize_t)bytes)
        give_up("the real disk failed");
    return done;
}

static ssize_t write_it(int fd, const char *name, const void *data, size_t bytes, uint64_t at, bool in_sequence)
{
    static bool ran_short;
    const struct settings *set = now();
    bool grows = at + bytes > length_of(fd);
    bool no_room = (grows && strikes(set->no_space)) || (ran_short && random_number() % 4 == 0);
    ran_short = false;
    if (no_room) {
        errno = ENOSPC;
        return -1;
    }
    if (strikes(set->write_error)) {
        // What lies before the bad sector is written.
        size_t before = random_number() % (bytes + 1) / 512 * 512;
        if (before > 0)
            really_write(fd, name, data, before, at, in_sequence);
        errno = EIO;
        return -1;
    }
    if (bytes > 1 && strikes(set->short_write)) {
        bytes = 1 + random_number() % (bytes - 1);
        // Where a disk fills up, a short write comes first and the refusal with the next.
        ran_short = true;
    }
    return really_write(fd, name, data, bytes, at, in_sequence);
}

ssize_t write(int fd, const void *data, size_t bytes)
{
    const char *name = watched_name(fd);
    if (!name)
        return syscall(SYS_write, fd, data, bytes);
    pthread_mutex_lock(&lock);
    bool appends = fcntl(fd, F_GETFL) & O_APPEND;
    uint64_t at = appends ? length_of(fd) : (uint64_t)lseek(fd, 0, SEEK_CUR);
    ssize_t done = write_it(fd, name, data, bytes, at, true);
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

ssize_t pwrite64(int fd, const void *data, size_t bytes, off64_t at)
{
    const char *name = watched_name(fd);
    if (!name)
        return syscall(SYS_pwrite64, fd, data, bytes, at);
    pthread_mutex_lock(&lock);
    ssize_t done = write_it(fd, name, data, bytes, (uint64_t)at, false);
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

ssize_t pwrite(int fd, const void *data, size_t bytes, off_t at)
{
    return pwrite64(fd, data, bytes, at);
}

int ftruncate64(int fd, off64_t length)
{
    const char *name = watched_name(fd);
    if (!name)
        return (int)syscall(SYS_ftruncate, fd, length);
    pthread_mutex_lock(&lock);
    int result = -1, error = ENOSPC;
    if ((uint64_t)length <= length_of(fd) || !strikes(now()->no_space)) {
        note(LENGTH, name, (uint64_t)length, NULL, 0);
        result = (int)syscall(SYS_ftruncate, fd, length);
        error = errno;
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

int ftruncate(int fd, off_t length)
{
    return ftruncate64(fd, length);
}

static int sync_it(int fd, long call)
{
    static uint64_t syncs;
    const char *name = watched_name(fd);
    if (!name)
        return (int)syscall(call, fd);
    pthread_mutex_lock(&lock);
    const struct settings set = *now();
    bool fails = strikes(set.sync_error);
    uint64_t number = ++syncs;
    note(SYNC_BEGUN, name, number, NULL, 0);
    pthread_mutex_unlock(&lock);
    // Not under the lock: what is written meanwhile may or may not be among what is synced.
    if (set.slow_sync_ms > 0) {
        struct timespec pause = {(time_t)(set.slow_sync_ms / 1000), (long)(set.slow_sync_ms % 1000) * 1000000};
        atomic_fetch_add(&control->faults, 1);
        nanosleep(&pause, NULL);
    }
    if (set.lie_about_sync) {
        atomic_fetch_add(&control->faults, 1);
        return 0;
    }
    int result = fails ? -1 : (int)syscall(call, fd);
    int error = fails ? EIO : errno;
    pthread_mutex_lock(&lock);
    note(result == 0 ? SYNCED : SYNC_FAILED, name, number, NULL, 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

int fsync(int fd)
{
    return sync_it(fd, SYS_fsync);
}

int fdatasync(int fd)
{
    return sync_it(fd, SYS_fdatasync);
}

static int64_t clock_step(void)
{
    return control ? now()->clock_step_s : 0;
}

int clock_gettime(clockid_t clock, struct timespec *at)
{
    int result = real_clock ? real_clock(clock, at) : (int)syscall(SYS_clock_gettime, clock, at);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        at->tv_sec += clock_step();
    return result;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone)
{
    (void)zone;
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0)
        return -1;
    *at = (struct timeval){now.tv_sec, now.tv_nsec / 1000};
    return 0;
}

time_t time(time_t *at)
{
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME_COARSE, &now) != 0)
        return -1;
    if (at)
        *at = now.tv_sec;
    return now.tv_sec;
}
