/*
 * The end of the interpreter, without taking apart what the program did not make.
 */
#include "warm.h"

#include <link.h>
#include <signal.h>
#include <sys/single_threaded.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * The modules that there were before the program, in the order of their addresses. They are not taken apart
 * at the end, but for those that the program changed.
 */
static struct known {
    PyObject *module;
    uint64_t version; /* of its dictionary */
} *known;
static size_t known_count;
/* Standard output and standard error, as the interpreter made them. */
static PyObject *streams[2];
static int exit_status, leaving;
static PyObject *get_objects, *base_of_files;
/*
 * What ends the process is destroyed with the last of what a program can know: with this module, if what the
 * program made is in modules alone, else with the dictionary of sys.
 */
static PyObject *last_module;
static uint64_t version_of_sys, version_of_builtins;

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

/* Whether there is no other thread any more: the kernel counts them as links (proc(5), /proc/pid/task). */
static int is_alone(void)
{
    struct stat status;
    return __libc_single_threaded || (stat("/proc/self/task", &status) == 0 && status.st_nlink == 2 + 1);
}

/*
 * What the program registered for its end is done. The destructors of the libraries that there were
 * before it do nothing that anybody could see, but touch a page or two of each. Of several threads
 * one may hold a stream's lock for ever: exit(3) flushes without it, as nobody else can.
 */
static void skip_destructors(int status, void *nothing)
{
    if (!is_alone() || count_loaded() != loaded_at_start)
        return;
    fflush(NULL);
    _exit(status);
}

/* As Py_RunMain does after the program and the end of the interpreter. */
static void end_process(void)
{
    if (INTERRUPTED) {
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

/*
 * Files that the program hung where they are taken apart later than this, as a handler of logging's: their
 * ends would have written what they hold.
 */
static void flush_files(void)
{
    PyObject *objects = PyObject_CallNoArgs(get_objects);
    for (Py_ssize_t i = 0; objects != NULL && i < PyList_GET_SIZE(objects); i++) {
        PyObject *object = PyList_GET_ITEM(objects, i);
        if (PyObject_TypeCheck(object, (PyTypeObject *)base_of_files))
            Py_XDECREF(PyObject_CallMethod(object, "flush", NULL));
        PyErr_Clear();
    }
    PyErr_Clear();
}

/* The last of the interpreter's objects that a program could know is gone: the rest goes with the machine. */
static void end_early(PyObject *capsule)
{
    /* Its own end would have done that. */
    flush_files();
    flush_own_streams();
    while (EXIT_FUNCTION_COUNT > 0)
        EXIT_FUNCTIONS[--EXIT_FUNCTION_COUNT]();
    fflush(stdout);
    fflush(stderr);
    end_process();
}

static uint64_t version(PyObject *module)
{
    return PyModule_Check(module) ? ((PyDictObject *)PyModule_GetDict(module))->ma_version_tag : 0;
}

static int compare(const void *one, const void *other)
{
    PyObject *first = ((struct known *)one)->module, *second = ((struct known *)other)->module;
    return (first > second) - (first < second);
}

static struct known *find_known(PyObject *module)
{
    return bsearch(&(struct known){.module = module}, known, known_count, sizeof *known, compare);
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

static uint64_t version_of(PyObject *dict)
{
    return ((PyDictObject *)dict)->ma_version_tag;
}

void know_usual_state(void)
{
    version_of_sys = version_of(PyThreadState_Get()->interp->sysdict);
    version_of_builtins = version_of(PyEval_GetBuiltins());
}

/* Modules are cleared in the order opposite to that of their imports: the third one comes when all others have. */
static int put_last(PyObject *capsule)
{
    PyInterpreterState *interpreter = PyThreadState_Get()->interp;
    int usual = version_of(interpreter->sysdict) == version_of_sys && version_of(PyEval_GetBuiltins()) == version_of_builtins;
    if (!usual)
        return PySys_SetObject("last", capsule);
    if (PyObject_SetAttrString(last_module, "last", capsule) < 0)
        return -1;
    return PyDict_SetItemString(PyImport_GetModuleDict(), "_frozen_importlib", last_module);
}

/*
 * The first function that was registered with atexit, so the last that is called. What there was
 * before the program is hidden from the end of the interpreter, which would take it apart object
 * by object; that ends when it comes to the capsule.
 */
static PyObject *shorten_the_end(PyObject *self, PyObject *arguments)
{
    PyObject *name, *module;
    Py_ssize_t position = 0;
    int has_others = PyInterpreterState_Next(PyInterpreterState_Head()) != NULL;
    if (!leaving || has_others || flush("stdout") < 0 || flush("stderr") < 0) {
        /* Py_FinalizeEx finds the same and has its own way with it. */
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    static char something;
    PyObject *capsule = PyCapsule_New(&something, NULL, end_early);
    if (capsule == NULL || put_last(capsule) < 0)
        PyErr_Clear();
    Py_XDECREF(capsule);
    PyObject *modules = PyImport_GetModuleDict(), *all = PyDict_Copy(modules);
    while (all != NULL && PyDict_Next(all, &position, &name, &module)) {
        struct known *found = find_known(module);
        if (found != NULL && version(module) == found->version && PyDict_DelItem(modules, name) < 0)
            PyErr_Clear();
    }
    Py_XDECREF(all);
    Py_RETURN_NONE;
}

/* All modules in a dictionary, as they are now. */
void know_at_the_end(PyObject *modules)
{
    PyObject *name, *module;
    Py_ssize_t position = 0;
    known = realloc(known, (known_count + PyDict_Size(modules)) * sizeof *known);
    if (known == NULL)
        fail("knowing modules");
    while (PyDict_Next(modules, &position, &name, &module))
        known[known_count++] = (struct known){module, version(module)};
}

/* One of them, which was changed, but not by the program. */
void know_again(PyObject *module)
{
    struct known *found = find_known(module);
    if (found != NULL)
        found->version = version(module);
}

void prepare_the_end(PyObject *gc)
{
    get_objects = must(PyObject_GetAttrString(gc, "get_objects"));
    base_of_files = must(PyObject_GetAttrString(must(PyImport_ImportModule("_io")), "_IOBase"));
    static PyMethodDef definition = {"shorten_the_end", shorten_the_end, METH_NOARGS, NULL};
    PyObject *atexit = must(PyImport_ImportModule("atexit"));
    must(PyObject_CallMethod(atexit, "register", "N", must(PyCFunction_New(&definition, NULL))));
    if (PyDict_DelItemString(PyImport_GetModuleDict(), "atexit") < 0)
        must(NULL);
    streams[0] = Py_NewRef(must(PySys_GetObject("__stdout__")));
    streams[1] = Py_NewRef(must(PySys_GetObject("__stderr__")));
    last_module = must(PyModule_New("last"));
}

/* A module that was hidden may be known from elsewhere too. */
static void forget_twins(void)
{
    size_t kept = 0;
    for (size_t i = 0; i < known_count; i++) {
        if (kept == 0 || known[kept - 1].module != known[i].module)
            known[kept++] = known[i];
    }
    known_count = kept;
}

/* The modules and the libraries that there are before the program. */
void know_what_there_is(void)
{
    /* Kept: the finders know the names of all that is in the library's directories. */
    must(PyDict_Copy(must(PySys_GetObject("path_importer_cache"))));
    PyObject *modules = must(PyDict_Copy(PyImport_GetModuleDict()));
    for (char **name = (char *[]){"__main__", "sys", "builtins", NULL}; *name != NULL; name++) {
        if (PyDict_DelItemString(modules, *name) < 0)
            must(NULL);
    }
    if (linecache != NULL && PyDict_SetItemString(modules, "linecache", linecache) < 0)
        must(NULL);
    know_at_the_end(modules);
    Py_DECREF(modules);
    qsort(known, known_count, sizeof *known, compare);
    forget_twins();
    loaded_at_start = count_loaded();
    /* It comes before what libraries have registered until now. */
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
