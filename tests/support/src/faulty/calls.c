// Writing, cutting and syncing what is watched.
#include "preload.h"
#include <sys/stat.h>

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
    pthread_mutex_lock(&calls);
    bool appends = fcntl(fd, F_GETFL) & O_APPEND;
    uint64_t at = appends ? length_of(fd) : (uint64_t)lseek(fd, 0, SEEK_CUR);
    ssize_t done = write_it(fd, name, data, bytes, at, true);
    int error = errno;
    pthread_mutex_unlock(&calls);
    errno = error;
    return done;
}

ssize_t pwrite64(int fd, const void *data, size_t bytes, off64_t at)
{
    const char *name = watched_name(fd);
    if (!name)
        return syscall(SYS_pwrite64, fd, data, bytes, at);
    pthread_mutex_lock(&calls);
    ssize_t done = write_it(fd, name, data, bytes, (uint64_t)at, false);
    int error = errno;
    pthread_mutex_unlock(&calls);
    errno = error;
    return done;
}

ssize_t pwrite(int fd, const void *data, size_t bytes, off_t at) __attribute__((alias("pwrite64")));

int ftruncate64(int fd, off64_t length)
{
    const char *name = watched_name(fd);
    if (!name)
        return (int)syscall(SYS_ftruncate, fd, length);
    pthread_mutex_lock(&calls);
    int result = -1, error = ENOSPC;
    if ((uint64_t)length <= length_of(fd) || !strikes(now()->no_space)) {
        note(LENGTH, name, (uint64_t)length, NULL, 0);
        result = (int)syscall(SYS_ftruncate, fd, length);
        error = errno;
    }
    pthread_mutex_unlock(&calls);
    errno = error;
    return result;
}

int ftruncate(int fd, off_t length) __attribute__((alias("ftruncate64")));

static int sync_it(int fd, long call)
{
    static uint64_t syncs;
    const char *name = watched_name(fd);
    if (!name)
        return (int)syscall(call, fd);
    pthread_mutex_lock(&calls);
    const struct settings set = *now();
    bool fails = strikes(set.sync_error);
    uint64_t number = ++syncs;
    note(SYNC_BEGUN, name, number, NULL, 0);
    pthread_mutex_unlock(&calls);
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
    pthread_mutex_lock(&calls);
    note(result == 0 ? SYNCED : SYNC_FAILED, name, number, NULL, 0);
    pthread_mutex_unlock(&calls);
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

