/*
 * Gets an interpreter ready to be saved.
 */
#include "warm.h"

#include <dlfcn.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

PyObject *hidden;

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

/* The kernel's page for all processes; its last byte is ours (host_services.c there). */
static PyObject *unchanged(void)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    struct mapping mapping;
    while (next_mapping(maps, &mapping)) {
        if (mapping.is_vvar) {
            fclose(maps);
            return must(PyMemoryView_FromMemory((char *)mapping.from + 4095, 1, PyBUF_READ));
        }
    }
    fail("finding [vvar]");
    return NULL;
}

/*
 * imports.py, under the name of the import system, whose frames no traceback shows. Libraries of
 * extension modules are loaded; that the modules are imported is left to the program.
 */
static PyObject *speed_imports(void)
{
    PyObject *globals = must(PyDict_New());
    hidden = must(PyList_New(0));
    must_set(globals, "archive", map_file("/usr/lib/sandbox/modules"));
    must_set(globals, "unchanged", unchanged());
    must_set(globals, "job", hidden);
    must_set(globals, "work", PyUnicode_FromString(work));
    run_hidden("/usr/lib/sandbox/imports.py", "<frozen importlib._bootstrap_external>", globals);
    PyObject *extensions = must(PyDict_GetItemString(globals, "extensions"));
    for (Py_ssize_t i = 0; i < PyList_Size(extensions); i++) {
        if (dlopen(PyUnicode_AsUTF8(PyList_GetItem(extensions, i)), RTLD_NOW) == NULL)
            fail(dlerror());
    }
    return globals;
}

/* What the first program would make on the way is made now. */
static void rehearse(void)
{
    static char script[] = "import sys\nprint(end='', flush=True)\nprint(end='', file=sys.stderr)\ndel sys\n";
    PyCompilerFlags flags = _PyCompilerFlags_INIT;
    PyObject *globals = PyModule_GetDict(must(PyImport_AddModule("__main__")));
    PyObject *loader = Py_NewRef(must(PyDict_GetItemString(globals, "__loader__")));
    for (int i = 0; i < 20; i++)
        PyRun_SimpleFileExFlags(fmemopen(script, sizeof script - 1, "r"), "rehearsal", 1, &flags);
    rehearse_source();
    must_set(globals, "__loader__", loader);
    Py_DECREF(loader);
}

/* What there is now is no garbage: the collector need not look at it again, not even at the end. */
static void freeze(PyObject *gc)
{
    must(PyObject_CallMethod(gc, "collect", NULL));
    must(PyObject_CallMethod(gc, "freeze", NULL));
    /* All but what the program fills: tracked anew, they are as young as it. */
    PyObject *module = must(PyImport_AddModule("__main__")), *globals = PyModule_GetDict(module);
    PyObject_GC_UnTrack(module), PyObject_GC_Track(module);
    PyObject_GC_UnTrack(globals), PyObject_GC_Track(globals);
}

/*
 * The C library draws random numbers itself, from a key that it asked the kernel for (vgetrandom in the
 * vDSO): each clone would draw the same. What its state is in may be dropped by the kernel at any time,
 * after which it asks for another key, so each clone for its own.
 */
static void drop_random_state(void)
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

/*
 * All pages of the interpreter that there are, as it will need them: a fault taken now is one
 * that no clone takes. What is private and writable gets pages of its own.
 */
static void touch_pages(void)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    struct mapping mapping;
    while (next_mapping(maps, &mapping)) {
        int advice = mapping.modes[1] == 'w' ? MADV_POPULATE_WRITE : MADV_POPULATE_READ;
        if (mapping.modes[0] == 'r')
            madvise((void *)mapping.from, mapping.to - mapping.from, advice);
    }
    if (maps != NULL)
        fclose(maps);
}

/* Until the rest of the machine has come to rest, and then until the moment after a timer tick. */
static void settle(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL);
    struct timespec before, now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &before);
    for (int ticks = 0; ticks < 3;) {
        clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
        if (now.tv_nsec != before.tv_nsec)
            ticks++, before = now;
    }
}

/* A module that nobody finds imported. */
static PyObject *import_hidden(const char *name)
{
    PyObject *module = must(PyImport_ImportModule(name));
    if (PyDict_DelItemString(PyImport_GetModuleDict(), name) < 0)
        must(NULL);
    return module;
}

void warm_up(void)
{
    /* Before there are modules that come when they are imported. */
    PyObject *gc = import_hidden("gc");
    prefault();
    PyObject *imports = speed_imports();
    rehearse();
    prepare_the_end(gc);
    if (preload(imports)) {
        fill_up();
        make_immortal();
    }
    know_what_there_is();
    freeze(gc);
    drop_random_state();
    touch_pages();
    settle();
}
