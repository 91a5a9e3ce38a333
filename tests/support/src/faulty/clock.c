// The wall clock. The monotonic one is left alone.
#include "preload.h"
#include <dlfcn.h>
#include <sys/time.h>

static int (*real_clock)(clockid_t, struct timespec *);

// The kernel's own, without a system call.
__attribute__((constructor)) static void find_clock(void)
{
    real_clock = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
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
