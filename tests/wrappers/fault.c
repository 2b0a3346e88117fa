/*
 * Preloaded into supa-safe, it ends the program at one of its writes, or lets the disk be full from there on.
 *
 * FAULT is `HOW N PART`. Files whose path holds PART count:
 *   before  kill -9 before their Nth sync
 *   after   kill -9 right after it
 *   full    no room for their Nth write, and for none after it
 * Programs that supa-safe starts inherit it, and are left alone.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_long seen;

/* Whether this is the Nth call on such a file, or a later one; *is_it says whether it is that very one. */
static int comes(const char *wanted, int fd, int *is_it)
{
    const char *fault = getenv("FAULT");
    char how[8], part[256], link[64], path[4096];
    long number, now;
    ssize_t length;

    *is_it = 0;
    if (fault == NULL || strcmp(program_invocation_short_name, "supa-safe") != 0)
        return 0;
    if (sscanf(fault, "%7s %ld %255s", how, &number, part) != 3 || strcmp(how, wanted) != 0)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = '\0';
    if (strstr(path, part) == NULL)
        return 0;
    now = atomic_fetch_add(&seen, 1) + 1;
    *is_it = now == number;
    return now >= number;
}

static int sync_by(long call, int fd)
{
    int is_it, result;

    comes("before", fd, &is_it);
    if (is_it)
        kill(getpid(), SIGKILL);
    result = (int)syscall(call, fd);
    comes("after", fd, &is_it);
    if (is_it)
        kill(getpid(), SIGKILL);
    return result;
}

int fsync(int fd)
{
    return sync_by(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    return sync_by(SYS_fdatasync, fd);
}

ssize_t write(int fd, const void *buffer, size_t count)
{
    int is_it;

    if (comes("full", fd, &is_it)) {
        errno = ENOSPC;
        return -1;
    }
    return syscall(SYS_write, fd, buffer, count);
}
