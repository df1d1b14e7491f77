/*
 * Memory for the program's objects that it need not ask the kernel for, since a page fault takes
 * that a millisecond on a software KVM: arenas of the interpreter's allocator, and the heap of
 * the C library's. It is all zeroes, and so takes no room in the template.
 */
#include "warm.h"

#include <unistd.h>

#define ARENA (1 << 20)
#define ARENAS_MAX 64

static PyObjectArenaAllocator usual;
static void *arenas[ARENAS_MAX];
static size_t spare, spare_max;
static int kept;

static void *allocate_arena(void *context, size_t size)
{
    return size == ARENA && spare > 0 ? arenas[--spare] : usual.alloc(context, size);
}

static void free_arena(void *context, void *address, size_t size)
{
    if (size == ARENA && spare < spare_max)
        arenas[spare++] = address;
    else if (size == ARENA || !kept)
        usual.free(context, address, size);
}

/* What was taken since is at hand again. */
void fill_up(void)
{
    while (spare < spare_max) {
        void *arena = usual.alloc(usual.ctx, ARENA);
        if (arena == NULL)
            fail("keeping memory at hand");
        arenas[spare++] = arena;
    }
}

void prefault(void)
{
    size_t memory = sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE), heap = memory / 64;
    spare_max = memory / 32 / ARENA < ARENAS_MAX ? memory / 32 / ARENA : ARENAS_MAX;
    PyObject_GetArenaAllocator(&usual);
    PyObjectArenaAllocator allocator = {usual.ctx, allocate_arena, free_arena};
    PyObject_SetArenaAllocator(&allocator);
    fill_up();
    /* Freeing a large piece raises the size from which the C library maps each of them (mallopt(3)). */
    void *volatile piece = malloc(2 * heap);
    free(piece);
    piece = malloc(heap);
    free(piece);
}

void keep_all_memory(void)
{
    kept = 1;
    spare_max = ARENAS_MAX;
}
