// What is to fail, what was done, and whose names it was done under.
#include "preload.h"
#include <stdio.h>
#include <sys/mman.h>
#include <sys/uio.h>

struct control *control;
const char *prefix;
pthread_mutex_t calls = PTHREAD_MUTEX_INITIALIZER;
static int journal = -1;

void give_up(const char *what)
{
    dprintf(2, "the faulty disk: %s: %s\n", what, strerror(errno));
    abort();
}

// A process that was killed while it wrote an entry left a half one: what this process appends would be read as its rest.
static void end_with_a_whole_entry(void)
{
    off_t length = (off_t)syscall(SYS_lseek, journal, 0, SEEK_END), whole = 0;
    struct record record;
    while (syscall(SYS_pread64, journal, &record, sizeof record, whole) == (long)sizeof record) {
        off_t next = whole + (off_t)(sizeof record + record.name_bytes + record.bytes);
        if (next > length)
            break;
        whole = next;
    }
    if (syscall(SYS_ftruncate, journal, whole) != 0)
        give_up("cutting the journal");
}

__attribute__((constructor)) static void start(void)
{
    prefix = getenv("TOWPATH_FAULTY_FILES");
    const char *control_path = getenv("TOWPATH_FAULTY_CONTROL"), *journal_path = getenv("TOWPATH_FAULTY_JOURNAL");
    if (!prefix || !control_path || !journal_path)
        return;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, control_path, O_RDWR | O_CLOEXEC);
    void *mapped = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED)
        give_up(control_path);
    syscall(SYS_close, fd);
    journal = (int)syscall(SYS_openat, AT_FDCWD, journal_path, O_RDWR | O_APPEND | O_CLOEXEC);
    if (journal < 0)
        give_up(journal_path);
    end_with_a_whole_entry();
    control = mapped;
}

const struct settings *now(void)
{
    return &control->settings[control->active & 1];
}

// The same seed gives the same numbers, from the start of the process or from when it was set.
uint64_t random_number(void)
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

bool strikes(uint64_t odds)
{
    bool it_does = odds > 0 && random_number() % 1000 < odds;
    if (it_does)
        atomic_fetch_add(&control->faults, 1);
    return it_does;
}

void note(enum kind kind, const char *name, uint64_t at, const void *data, size_t bytes)
{
    if (strcmp(name, "-shm") == 0)
        return;
    struct record record = {kind, (uint32_t)strlen(name), at, bytes};
    struct iovec parts[] = {{&record, sizeof record}, {(void *)name, record.name_bytes}, {(void *)data, bytes}};
    ssize_t all = (ssize_t)(sizeof record + record.name_bytes + bytes);
    if (syscall(SYS_writev, journal, parts, data ? 3 : 2) != all)
        give_up("writing the journal");
}

