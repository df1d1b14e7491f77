/*
 * Modules that are imported before the interpreter is saved (preload.py and two more), and the random bytes that
 * they draw meanwhile, which no clone may share.
 */
#include "warm.h"

#include <dlfcn.h>
#include <errno.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#define WISHES "SANDBOX_PRELOAD"
#define FIRST_USES "SANDBOX_FIRST_USES"

static char *wanted, *first_uses;
/* The variable by which this library is loaded. */
static char *loader;
/* The function of finders.py that looks for other modules of the same names, if there are any of packages. */
static PyObject *collides;
/* While modules are imported: counts of bytes, and who drew them. */
static PyObject *drawn;
/* How often another thread drew any. */
static int drawn_by_threads;

static char *take_variable(const char *name)
{
    const char *value = getenv(name);
    char *copy = value == NULL ? NULL : strdup(value);
    unsetenv(name);
    return copy;
}

void read_preload(void)
{
    wanted = take_variable(WISHES);
    first_uses = take_variable(FIRST_USES);
    loader = strdup(getenv("LD_PRELOAD"));
}

static PyObject *module_of(PyFrameObject *frame)
{
    PyObject *globals = PyFrame_GetGlobals(frame);
    PyObject *module = Py_NewRef(PyDict_GetItemString(globals, "__name__") ?: Py_None);
    Py_DECREF(globals);
    return module;
}

/* The module that asked for random bytes: the module random draws for others. */
static PyObject *drawer_of(PyFrameObject *frame)
{
    PyObject *module = module_of(frame);
    Py_INCREF(frame);
    while (PyUnicode_Check(module) && PyUnicode_CompareWithASCIIString(module, "random") == 0) {
        PyFrameObject *back = PyFrame_GetBack(frame);
        if (back == NULL)
            break;
        Py_SETREF(frame, back);
        Py_SETREF(module, module_of(frame));
    }
    Py_DECREF(frame);
    return module;
}

/* So many bytes, who drew them, and for whom: randomness.py says more. */
static PyObject *draw_of(ssize_t count, const char *library)
{
    PyFrameObject *frame = PyEval_GetFrame();
    if (frame == NULL)
        return Py_BuildValue("(nOOOs)", count, Py_None, Py_None, Py_None, library);
    PyCodeObject *code = PyFrame_GetCode(frame);
    PyObject *draw = Py_BuildValue("(nNONs)", count, module_of(frame), code->co_name, drawer_of(frame), library);
    Py_DECREF(code);
    return draw;
}

static void note_draw(ssize_t count, const char *library)
{
    if (drawn == NULL || count <= 0)
        return;
    if (gettid() != getpid()) {
        __atomic_fetch_add(&drawn_by_threads, 1, __ATOMIC_SEQ_CST);
        return;
    }
    /* os.urandom() lets go of it meanwhile. */
    PyGILState_STATE lock = PyGILState_Ensure();
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyObject *draw = must(draw_of(count, library));
    if (PyList_Append(drawn, draw) < 0)
        must(NULL);
    Py_DECREF(draw);
    PyErr_Restore(type, error, traceback);
    PyGILState_Release(lock);
}

/* In place of the C library's, for all libraries of the process. */
__attribute__((visibility("default"))) ssize_t getrandom(void *bytes, size_t size, unsigned flags)
{
    ssize_t count = syscall(SYS_getrandom, bytes, size, flags);
    note_draw(count, "");
    return count;
}

/* Up to 256 bytes come whole: getrandom(2). */
static int draw_for(const void *caller, void *bytes, size_t size)
{
    Dl_info info;
    if (syscall(SYS_getrandom, bytes, size, 0) != (ssize_t)size)
        return -1;
    note_draw(size, dladdr(caller, &info) != 0 && info.dli_fname != NULL ? info.dli_fname : "?");
    return 0;
}

__attribute__((visibility("default"))) int getentropy(void *bytes, size_t size)
{
    if (size > 256) {
        errno = EIO;
        return -1;
    }
    return draw_for(__builtin_return_address(0), bytes, size);
}

__attribute__((visibility("default"))) uint32_t arc4random(void)
{
    uint32_t number = 0;
    if (draw_for(__builtin_return_address(0), &number, sizeof number) < 0)
        fail("drawing random bytes");
    return number;
}

__attribute__((visibility("default"))) void arc4random_buf(void *bytes, size_t size)
{
    const void *caller = __builtin_return_address(0);
    for (size_t done = 0, piece; done < size; done += piece) {
        piece = size - done < 256 ? size - done : 256;
        if (draw_for(caller, (char *)bytes + done, piece) < 0)
            fail("drawing random bytes");
    }
}

static PyObject *draws(PyObject *self, PyObject *arguments)
{
    PyObject *noted = drawn;
    drawn = must(PyList_New(0));
    if (__atomic_exchange_n(&drawn_by_threads, 0, __ATOMIC_SEQ_CST) > 0) {
        PyObject *nobody = must(Py_BuildValue("(iOOOs)", 0, Py_None, Py_None, Py_None, ""));
        if (PyList_Append(noted, nobody) < 0)
            must(NULL);
    }
    return noted;
}

static PyObject *know(PyObject *self, PyObject *module)
{
    know_again(module);
    Py_RETURN_NONE;
}

/* An interpreter with these modules alone, which are used or not. */
static void start_over(PyObject *names, int are_used)
{
    PyObject *comma = must(PyUnicode_FromString(",")), *rest = must(PyUnicode_Join(comma, names));
    setenv(WISHES, PyUnicode_AsUTF8(rest), 1);
    if (are_used && first_uses != NULL)
        setenv(FIRST_USES, first_uses, 1);
    setenv("LD_PRELOAD", loader, 1);
    execl("/proc/self/exe", "python3", "-c", "", NULL);
    fail("starting over");
}

/* Whether anything was imported. */
int preload(PyObject *imports)
{
    static PyMethodDef draws_method = {"draws", draws, METH_NOARGS, NULL};
    static PyMethodDef know_method = {"know", know, METH_O, NULL};
    if (wanted == NULL || *wanted == 0)
        return 0;
    PyObject *globals = must(PyDict_New()), *text = must(PyUnicode_FromString(wanted));
    PyObject *names = must(PyObject_CallMethod(text, "split", "s", ","));
    must_set(globals, "wanted", names);
    must_set(globals, "first_uses", PyUnicode_FromString(first_uses == NULL ? "" : first_uses));
    must_set(globals, "draws", PyCFunction_New(&draws_method, NULL));
    must_set(globals, "linecache", Py_NewRef(linecache == NULL ? Py_None : linecache));
    must_set(globals, "know", PyCFunction_New(&know_method, NULL));
    must_set(globals, "complete", Py_NewRef(complete));
    must_set(globals, "completions", Py_NewRef(completions));
    const char *shared[] = {"find_numpy_generators", "seed_numpy", "preloaded"};
    for (size_t i = 0; i < sizeof shared / sizeof *shared; i++)
        must_set(globals, shared[i], Py_XNewRef(PyDict_GetItemString(individual, shared[i])));
    const char *of_imports[] = {"is_only_library", "job"};
    for (size_t i = 0; i < sizeof of_imports / sizeof *of_imports; i++)
        must_set(globals, of_imports[i], Py_NewRef(must(PyDict_GetItemString(imports, of_imports[i]))));
    drawn = must(PyList_New(0));
    run_hidden("/usr/lib/sandbox/randomness.py", "<frozen importlib._bootstrap>", globals);
    run_hidden("/usr/lib/sandbox/finders.py", "<frozen importlib._bootstrap>", globals);
    run_hidden("/usr/lib/sandbox/preload.py", "<frozen importlib._bootstrap>", globals);
    Py_CLEAR(drawn);
    PyObject *fit = must(PyDict_GetItemString(globals, "fit"));
    if (PyList_Size(fit) < PyList_Size(must(PyDict_GetItemString(globals, "wishes"))))
        start_over(fit, 1);
    if (PyDict_GetItemString(globals, "is_useful") == Py_False)
        start_over(fit, 0);
    know_at_the_end(must(PyDict_GetItemString(globals, "hidden")));
    if (must(PyDict_GetItemString(globals, "has_packages")) == Py_True)
        collides = Py_NewRef(must(PyDict_GetItemString(globals, "collides")));
    return 1;
}

/*
 * Whether files that were put would be imported instead of packages that were imported ahead: then the
 * program gets an interpreter of its own, since some of those cannot be imported twice.
 */
int is_overshadowed(const struct job *job)
{
    if (collides == NULL || !(job->flags & ENTER))
        return 0;
    PyObject *directory = decode(job->directory), *script = decode(job->path);
    return PyObject_IsTrue(must(PyObject_CallFunctionObjArgs(collides, directory, script, NULL)));
}
