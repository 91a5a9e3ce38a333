// Which open files are watched, and what they are called.
#include "preload.h"
#include <limits.h>
#include <stdio.h>

#define FDS 4096
static char *watched[FDS];

// What of an open file's path follows the prefix, `/` for the folder of the files; NULL when it is not watched. To be freed.
static char *name_of(int fd)
{
    char link[40], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    if (!control || length < 0)
        return NULL;
    path[length] = 0;
    if (strlen(path) == (size_t)(strrchr(prefix, '/') - prefix) && strncmp(path, prefix, strlen(path)) == 0)
        return strdup("/");
    return strncmp(path, prefix, strlen(prefix)) == 0 ? strdup(path + strlen(prefix)) : NULL;
}

const char *watched_name(int fd)
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
        pthread_mutex_lock(&calls);
        note(LENGTH, name, 0, NULL, 0);
        pthread_mutex_unlock(&calls);
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

int openat(int folder, const char *path, int flags, ...)
{
    MODE(flags)
    return open_it(folder, path, flags, mode);
}

int open64(const char *path, int flags, ...) __attribute__((alias("open")));
int openat64(int folder, const char *path, int flags, ...) __attribute__((alias("openat")));

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
    pthread_mutex_lock(&calls);
    if (name)
        note(REMOVED, name, 0, NULL, 0);
    int result = (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    int error = errno;
    pthread_mutex_unlock(&calls);
    free(name);
    errno = error;
    return result;
}

