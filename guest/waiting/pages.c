/*
 * The pages of a process that is about to be saved.
 */
#include "waiting.h"

#include <sys/mman.h>
#include <time.h>

/* A mapping of ours, from /proc/self/maps. */
struct mapping {
    unsigned long from, to;
    char modes[5];
    int is_vvar;
};

static int next_mapping(FILE *maps, struct mapping *mapping)
{
    static char *line;
    static size_t size;
    if (maps == NULL || getline(&line, &size, maps) < 0)
        return 0;
    mapping->is_vvar = strstr(line, "[vvar]") != NULL;
    return sscanf(line, "%lx-%lx %4s", &mapping->from, &mapping->to, mapping->modes) == 3;
}

const char *vvar_page(void)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    struct mapping mapping;
    while (next_mapping(maps, &mapping)) {
        if (mapping.is_vvar) {
            fclose(maps);
            return (const char *)mapping.from;
        }
    }
    fail("finding [vvar]");
    return NULL;
}

/*
 * The C library draws random numbers itself, from a key that it asked the kernel for (vgetrandom in the
 * vDSO): each clone would draw the same. What its state is in may be dropped by the kernel at any time,
 * after which it asks for another key, so each clone for its own.
 */
void drop_random_state(void)
{
    FILE *maps = fopen("/proc/self/smaps", "r");
    unsigned long start, end, from = 0, to = 0;
    char *line = NULL;
    size_t size = 0;
    if (maps == NULL)
        fail("/proc/self/smaps");
    while (getline(&line, &size, maps) >= 0) {
        int is_droppable = strncmp(line, "VmFlags:", 8) == 0 && strstr(line, " dp") != NULL;
        if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
            from = start, to = end;
        else if (is_droppable && madvise((void *)from, to - from, MADV_DONTNEED) < 0)
            fail("dropping the state of random numbers");
    }
    free(line);
    fclose(maps);
}

static void touch(int are_written_too)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    struct mapping mapping;
    while (next_mapping(maps, &mapping)) {
        int is_writable = mapping.modes[1] == 'w';
        if (mapping.modes[0] == 'r' && (are_written_too || !is_writable))
            madvise((void *)mapping.from, mapping.to - mapping.from, is_writable ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
    }
    if (maps != NULL)
        fclose(maps);
}

/*
 * All pages of this process that there are, as it will need them: a fault taken now is one
 * that no clone takes. What is private and writable gets pages of its own.
 */
void touch_pages(void)
{
    touch(1);
}

/* Those alone that are only read: for a program that reserves much more than it writes to. */
void touch_read_only_pages(void)
{
    touch(0);
}

/* Until the rest of the machine has come to rest, and then until the moment after a timer tick. */
void settle(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    struct timespec before, now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &before);
    for (int ticks = 0; ticks < 3;) {
        clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
        if (now.tv_nsec != before.tv_nsec)
            ticks++, before = now;
    }
}
