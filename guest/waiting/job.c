/*
 * The job, which the host has for a prctl(2) of our kernel's (kernel-config/patches, "host services").
 */
#include "waiting.h"

#include <errno.h>
#include <sys/prctl.h>

#define PR_HOST_JOB 0x484f5303

/* The first piece of the job. Written to before the template is saved, so that it is there. */
static char first[64 << 10];

/* What did not fit there. */
static char *whole;

static const char *cursor, *end;

static uint32_t take_u32(void)
{
    uint32_t value;
    if (end - cursor < (ptrdiff_t)sizeof value) {
        errno = EPROTO;
        fail("reading the job");
    }
    memcpy(&value, cursor, sizeof value);
    cursor += sizeof value;
    return value;
}

static struct bytes take_bytes(void)
{
    struct bytes bytes = {.length = take_u32()};
    if ((size_t)(end - cursor) < bytes.length) {
        errno = EPROTO;
        fail("reading the job");
    }
    bytes.data = cursor;
    cursor += bytes.length;
    return bytes;
}

static struct list take_list(void)
{
    struct list list = {.count = take_u32()};
    list.items = calloc(list.count, sizeof *list.items);
    if (list.items == NULL)
        fail("reading the job");
    for (uint32_t i = 0; i < list.count; i++)
        list.items[i] = take_bytes();
    return list;
}

char *copy_of(struct bytes bytes)
{
    char *copy = strndup(bytes.data, bytes.length);
    if (copy == NULL)
        fail("reading the job");
    return copy;
}

static void receive(void)
{
    long got = prctl(PR_HOST_JOB, first, sizeof first);
    if (got < (long)sizeof(uint32_t))
        fail("asking for the job");
    cursor = first;
    end = first + got;
    size_t length = take_u32(), have = end - cursor;
    free(whole);
    whole = NULL;
    if (have < length) {
        whole = malloc(length);
        if (whole == NULL)
            fail("reading the job");
        memcpy(whole, cursor, have);
        while (have < length) {
            got = prctl(PR_HOST_JOB, whole + have, length - have);
            if (got <= 0)
                fail("reading the job");
            have += got;
        }
        cursor = whole;
    }
    end = cursor + length;
}

struct job receive_job(void)
{
    struct job job;
    receive();
    job.argv = take_list();
    job.env = take_list();
    /* What holds of this process already: the limit on processes, user, group, and the root. */
    for (int i = 0; i < 4; i++)
        take_u32();
    job.directory = take_bytes();
    job.on_terminal = take_u32();
    job.window = take_u32();
    job.flags = take_u32();
    job.path = take_bytes();
    job.source = take_bytes();
    return job;
}

/* Asks at a point: the answer comes in each machine that goes on from there, and says whether it is another. */
int is_another_after_point(void)
{
    receive();
    return take_u32();
}

struct cell receive_cell(void)
{
    struct cell cell;
    receive();
    cell.number = take_bytes();
    cell.code = take_bytes();
    cell.input = take_bytes();
    return cell;
}
