/*
 * The end of the interpreter, without taking apart what the program did not make.
 */
#include "warm.h"
#include <internal/pycore_pylifecycle.h>
#include <internal/pycore_runtime.h>

#include <link.h>
#include <signal.h>
#include <sys/single_threaded.h>
#include <unistd.h>

/*
 * The modules that there were before the program, which are not taken apart at the end, and the
 * versions of their dictionaries: one that the program changed goes the usual way.
 */
#define MODULES_MAX 128
static PyObject *startup;
static uint64_t versions[MODULES_MAX];
/* Standard output and standard error, as the interpreter made them. */
static PyObject *streams[2];
static int exit_status, leaving;

static int look_at_loaded(struct dl_phdr_info *info, size_t size, void *loaded)
{
    *(unsigned long long *)loaded = info->dlpi_adds;
    return 1;
}

/* How many libraries have been loaded so far. */
static unsigned long long count_loaded(void)
{
    unsigned long long loaded = 0;
    dl_iterate_phdr(look_at_loaded, &loaded);
    return loaded;
}

static unsigned long long loaded_at_start;

/*
 * What the program registered for its end is done. The destructors of the libraries that there were
 * before it do nothing that anybody could see, but touch a page or two of each. Of several threads
 * one may hold a stream's lock for ever: exit(3) flushes without it, as nobody else can.
 */
static void skip_destructors(int status, void *nothing)
{
    if (!__libc_single_threaded || count_loaded() != loaded_at_start)
        return;
    fflush(NULL);
    _exit(status);
}

/* As Py_RunMain does after the program and the end of the interpreter. */
static void end_process(void)
{
    if (_Py_UnhandledKeyboardInterrupt) {
        signal(SIGINT, SIG_DFL);
        kill(getpid(), SIGINT);
    }
    exit(exit_status);
}

static void flush_own_streams(void)
{
    for (int i = 0; i < 2; i++) {
        if (streams[i] != NULL && PyObject_CallMethod(streams[i], "flush", NULL) == NULL)
            PyErr_Clear();
    }
}

/* The last of the interpreter's objects that a program could know is gone: the rest goes with the machine. */
static void end_early(PyObject *capsule)
{
    /* Its own end would have done that. */
    flush_own_streams();
    while (_PyRuntime.nexitfuncs > 0)
        _PyRuntime.exitfuncs[--_PyRuntime.nexitfuncs]();
    fflush(stdout);
    fflush(stderr);
    end_process();
}

static uint64_t version(PyObject *module)
{
    return PyModule_Check(module) ? ((PyDictObject *)PyModule_GetDict(module))->ma_version_tag : 0;
}

static int flush(const char *stream)
{
    PyObject *file = PySys_GetObject(stream);
    PyObject *result = file == NULL || file == Py_None ? Py_None : PyObject_CallMethod(file, "flush", NULL);
    return result == NULL ? -1 : 0;
}

void flush_streams(void)
{
    if (flush("stdout") < 0)
        PyErr_Clear();
    if (flush("stderr") < 0)
        PyErr_Clear();
    flush_own_streams();
}

/*
 * The first function that was registered with atexit, so the last that is called. What there was
 * before the program is hidden from the end of the interpreter, which would take it apart object
 * by object; that ends when it comes to the capsule, the last of what the sys module holds.
 */
static PyObject *shorten_the_end(PyObject *self, PyObject *arguments)
{
    PyObject *modules = PyImport_GetModuleDict(), *name, *module;
    Py_ssize_t position = 0;
    if (!leaving || flush("stdout") < 0 || flush("stderr") < 0) {
        /* Py_FinalizeEx finds the same and has its own way with it. */
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    for (int i = 0; PyDict_Next(startup, &position, &name, &module); i++) {
        int unchanged = i < MODULES_MAX && version(module) == versions[i];
        if (unchanged && PyDict_GetItem(modules, name) == module && PyDict_DelItem(modules, name) < 0)
            PyErr_Clear();
    }
    static char something;
    PyObject *capsule = PyCapsule_New(&something, NULL, end_early);
    if (capsule == NULL || PySys_SetObject("last", capsule) < 0)
        PyErr_Clear();
    Py_XDECREF(capsule);
    Py_RETURN_NONE;
}

void prepare_the_end(void)
{
    static PyMethodDef definition = {"shorten_the_end", shorten_the_end, METH_NOARGS, NULL};
    PyObject *atexit = must(PyImport_ImportModule("atexit"));
    must(PyObject_CallMethod(atexit, "register", "N", must(PyCFunction_New(&definition, NULL))));
    if (PyDict_DelItemString(PyImport_GetModuleDict(), "atexit") < 0)
        must(NULL);
    streams[0] = Py_NewRef(must(PySys_GetObject("__stdout__")));
    streams[1] = Py_NewRef(must(PySys_GetObject("__stderr__")));
    startup = must(PyDict_Copy(PyImport_GetModuleDict()));
    for (char **name = (char *[]){"__main__", "sys", "builtins", NULL}; *name != NULL; name++) {
        if (PyDict_DelItemString(startup, *name) < 0)
            must(NULL);
    }
    PyObject *name, *module;
    Py_ssize_t position = 0;
    for (int i = 0; i < MODULES_MAX && PyDict_Next(startup, &position, &name, &module); i++)
        versions[i] = version(module);
    loaded_at_start = count_loaded();
    on_exit(skip_destructors, NULL);
}

void exit_process(int status)
{
    leaving = 1;
    /* The machine goes with the process: giving memory back is for nothing. */
    keep_all_memory();
    exit_status = status;
    if (Py_FinalizeEx() < 0)
        exit_status = 120;
    end_process();
}
