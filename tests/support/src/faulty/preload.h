// A disk and a wall clock that misbehave on command, below one process. Loaded by LD_PRELOAD; `faulty.rs` is the other side.
//
// Watched are the files whose path begins with TOWPATH_FAULTY_FILES: calls on them are delayed, refused, cut short, or done
// (`calls.c`). What is done to them is written to a journal first, from which `power.rs` works out what a power cut may leave.
// The index of SQLite's log (`-shm`) is memory: it fails like the others, and is in no journal.
//
// Not seen: writes to a mapping (`power.rs` compares each file with its journal, and would notice), calls within libc, and a
// wait of the kernel until a time of the wall clock. Towpath does none of these with what is watched.
#pragma once
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
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

// The entries of the journal. Each is a record, the file's name, and the data.
enum kind { WRITE = 1, LENGTH, REMOVED, SYNC_BEGUN, SYNCED, SYNC_FAILED };

struct record {
    uint32_t kind, name_bytes;
    uint64_t at;    // LENGTH: the length. SYNC…: a number, the same at the begin and the end.
    uint64_t bytes; // of WRITE's data, which follow the name
};

// Not visible to the process below which this lies.
#pragma GCC visibility push(hidden)

extern struct control *control; // NULL where nothing is to fail
extern const char *prefix;
extern pthread_mutex_t calls; // held over a call and its record, so that the journal has the calls' order

const struct settings *now(void);
uint64_t random_number(void); // under the lock
bool strikes(uint64_t odds);  // likewise
void note(enum kind kind, const char *name, uint64_t at, const void *data, size_t bytes);
__attribute__((noreturn)) void give_up(const char *what);

// What of a watched file's path follows the prefix, and `/` for the folder of the files; NULL where it is not watched.
const char *watched_name(int fd);

#pragma GCC visibility pop
