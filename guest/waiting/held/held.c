/*
 * A program that waits where its main function begins: its libraries are loaded and its pages are there. Loaded
 * (LD_PRELOAD) into a program of any language, this library takes main's place, gets ready to be saved, and asks for
 * the job. With that it goes on as a process does that was started with the job's words and variables.
 */
#include "waiting.h"

#include <alloca.h>
#include <dlfcn.h>
#include <errno.h>
#include <sys/random.h>
#include <unistd.h>

typedef int entry(int, char **, char **);
typedef int starter(entry *, int, char **, void (*)(void), void (*)(void), void (*)(void), void *);

static entry *program;

static const char *base_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash == NULL ? path : slash + 1;
}

/* The most that heap and stack are moved by. V8 counts the bytes that it lets JavaScript have from the stack's start. */
#define HEAP_MOVE (1UL << 28)
#define STACK_MOVE (32UL << 10)
#define ALIGNMENT _Alignof(max_align_t)
/* As many of the smallest as there are in what the C library gets from the kernel at once. */
#define PIECES_MAX 8192

/* Has nothing of this size at hand below an address; of a program that allocates elsewhere, a few pieces. */
static void use_up(size_t size, char *end)
{
    char *taken;
    for (int pieces = 0; pieces < PIECES_MAX; pieces++) {
        if ((taken = malloc(size)) == NULL || taken >= end) {
            free(taken);
            return;
        }
    }
}

/*
 * As the kernel places the heap and the stack of each program anew: some programs take addresses for random numbers
 * (Lua, for the seed of math.random). What there is of the heap is given up. Returns what to move the stack by.
 */
static size_t move_heap(void)
{
    uint64_t chance[2];
    if (getrandom(chance, sizeof chance, 0) != sizeof chance)
        fail("drawing random numbers");
    char *end = sbrk(chance[0] % HEAP_MOVE & -ALIGNMENT);
    if (end == (char *)-1)
        fail("moving the heap");
    /* Larger pieces are not kept for their size: these are all that there may be (mallopt(3), M_MMAP_THRESHOLD). */
    for (size_t size = 128 << 10; size > 2 << 10; size /= 2)
        use_up(size, end);
    for (size_t size = 2 << 10; size > 0; size -= ALIGNMENT)
        use_up(size, end);
    return chance[1] % STACK_MOVE;
}

static int start(const struct job *job)
{
    struct words words = take_words(job);
    environ = words.env;
    program_invocation_name = words.argv[0];
    program_invocation_short_name = (char *)base_of(words.argv[0]);
    char *volatile moved = alloca(move_heap() + 1);
    int status = program(job->argv.count, words.argv, environ);
    /* Until here the stack is moved. */
    return moved == NULL ? 0 : status;
}

static int held(int count, char **given, char **variables)
{
    struct job job = await_job(touch_pages);
    if (job.flags & EXECUTE)
        execute(&job);
    return start(&job);
}

/* What the start of every program calls (the C library's csu/libc-start.c). */
__attribute__((visibility("default"))) int __libc_start_main(
    entry *main, int argc, char **argv, void (*init)(void), void (*fini)(void), void (*rtld_fini)(void), void *stack_end)
{
    starter *start = (starter *)dlsym(RTLD_NEXT, "__libc_start_main");
    if (start == NULL)
        fail("finding the start of programs");
    program = main;
    return start(held, argc, argv, init, fini, rtld_fini, stack_end);
}
