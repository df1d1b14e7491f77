/*
 * The words and variables of a program that was started before it had any.
 */
#include "waiting.h"

#include <linux/prctl.h>
#include <sys/prctl.h>
#include <unistd.h>

/* The places that the kernel knows of this process; but for the words, they stay. */
static struct prctl_mm_map places = {.exe_fd = -1};

/* Fields of /proc/self/stat, counted as proc_pid_stat(5) does. */
enum {
    STATE = 3,
    START_CODE = 26,
    END_CODE = 27,
    START_STACK = 28,
    START_DATA = 45,
    END_DATA = 46,
    START_BRK = 47,
};

static __u64 *place_of(int field)
{
    switch (field) {
    case START_CODE: return &places.start_code;
    case END_CODE: return &places.end_code;
    case START_STACK: return &places.start_stack;
    case START_DATA: return &places.start_data;
    case END_DATA: return &places.end_data;
    case START_BRK: return &places.start_brk;
    default: return NULL;
    }
}

void prepare_words(void)
{
    static char line[1024];
    FILE *stat = fopen("/proc/self/stat", "r");
    if (stat == NULL || fgets(line, sizeof line, stat) == NULL)
        fail("/proc/self/stat");
    fclose(stat);
    /* The name of the program, before this, may have anything in it. */
    char *rest = strrchr(line, ')') + 1;
    for (int field = STATE; field <= START_BRK; field++) {
        char *word = strtok_r(NULL, " ", &rest);
        if (place_of(field) != NULL)
            *place_of(field) = strtoull(word, NULL, 10);
    }
}

/* Copies the strings of a list to `end`, one behind the other, and returns where each is. */
static char **laid_out(const struct list *list, char **end)
{
    char **words = calloc(list->count + 1, sizeof *words);
    if (words == NULL)
        fail("reading the job");
    for (uint32_t i = 0; i < list->count; i++) {
        words[i] = *end;
        *end = mempcpy(*end, list->items[i].data, list->items[i].length);
        *(*end)++ = 0;
    }
    return words;
}

static size_t size_of(const struct list *list)
{
    size_t size = 0;
    for (uint32_t i = 0; i < list->count; i++)
        size += list->items[i].length + 1;
    return size;
}

struct words take_words(const struct job *job)
{
    char *start = malloc(size_of(&job->argv) + size_of(&job->env)), *end = start;
    if (start == NULL)
        fail("reading the job");
    struct words words;
    places.arg_start = (uintptr_t)end;
    words.argv = laid_out(&job->argv, &end);
    places.arg_end = places.env_start = (uintptr_t)end;
    words.env = laid_out(&job->env, &end);
    places.env_end = (uintptr_t)end;
    places.brk = (uintptr_t)sbrk(0);
    if (prctl(PR_SET_MM, PR_SET_MM_MAP, &places, sizeof places, 0) < 0)
        fail("naming the program");
    return words;
}
