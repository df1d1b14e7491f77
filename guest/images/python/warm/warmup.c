/*
 * Gets an interpreter ready to be saved.
 */
#include "warm.h"

#include <dlfcn.h>

PyObject *hidden;

/* Its last byte is ours (host_services.c in the kernel). */
static PyObject *unchanged(void)
{
    return must(PyMemoryView_FromMemory((char *)vvar_page() + 4095, 1, PyBUF_READ));
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
