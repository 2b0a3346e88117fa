/*
 * Preloaded into supa-safe, it ends the program at one of its writes or syncs, or lets the disk be full from there on.
 *
 * FAULT is `HOW CALL N PART`. Calls on files whose path holds PART count, CALL being `write` or `sync`:
 *   before  kill -9 before their Nth
 *   after   kill -9 right after it
 *   full    no room for their Nth, and for none after it
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

enum fault { NONE, BEFORE, AFTER, FULL };

static atomic_long seen;

/* What comes to this call on this file. */
static enum fault comes(const char *call, int fd)
{
    const char *fault = getenv("FAULT");
    char how[8], wanted[8], part[256], link[64], path[4096];
    long number, now;
    ssize_t length;

    if (fault == NULL || strcmp(program_invocation_short_name, "supa-safe") != 0)
        return NONE;
    if (sscanf(fault, "%7s %7s %ld %255s", how, wanted, &number, part) != 4 || strcmp(wanted, call) != 0)
        return NONE;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return NONE;
    path[length] = '\0';
    if (strstr(path, part) == NULL)
        return NONE;
    now = atomic_fetch_add(&seen, 1) + 1;
    if (strcmp(how, "full") == 0)
        return now >= number ? FULL : NONE;
    if (now != number)
        return NONE;
    return strcmp(how, "before") == 0 ? BEFORE : AFTER;
}

static void die(void)
{
    kill(getpid(), SIGKILL);
}

static int sync_by(long call, int fd)
{
    enum fault fault = comes("sync", fd);
    int result;

    if (fault == FULL) {
        errno = ENOSPC;
        return -1;
    }
    if (fault == BEFORE)
        die();
    result = (int)syscall(call, fd);
    if (fault == AFTER)
        die();
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
    enum fault fault = comes("write", fd);
    ssize_t result;

    if (fault == FULL) {
        errno = ENOSPC;
        return -1;
    }
    if (fault == BEFORE)
        die();
    result = syscall(SYS_write, fd, buffer, count);
    if (fault == AFTER)
        die();
    return result;
}
