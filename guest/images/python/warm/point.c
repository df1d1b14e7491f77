/*
 * A point at which a session's machine may be saved, to go on in any number of others. Each of these is
 * another individual.
 */
#include "warm.h"

#include <dlfcn.h>
#include <sys/stat.h>

PyObject *individual;

/* Of individual.py, whatever the program makes of it. */
static PyObject *become_another;

/* SQLite seeds its generator when it is first used after this (sqlite.org/c3ref/randomness.html). */
static PyObject *forget_numbers(PyObject *self, PyObject *arguments)
{
    void *library = dlopen("libsqlite3.so.0", RTLD_LAZY | RTLD_NOLOAD);
    void (*randomness)(int, void *) = library == NULL ? NULL : (void (*)(int, void *))dlsym(library, "sqlite3_randomness");
    if (randomness != NULL)
        randomness(0, NULL);
    if (library != NULL)
        dlclose(library);
    Py_RETURN_NONE;
}

/* The host has the program's files for this machine alone, and makes them when somebody first looks for one. */
static void have_files_made(void)
{
    struct stat status;
    stat(work, &status);
}

void pass_point(void)
{
    have_files_made();
    flush_streams();
    fflush(NULL);
    if (!is_another_after_point())
        return;
    PyThreadState *thread = PyThreadState_Get();
    PyThreadState_EnterTracing(thread);
    Py_XDECREF(PyObject_CallNoArgs(become_another));
    PyThreadState_LeaveTracing(thread);
    PyErr_Clear();
}

void prepare_points(void)
{
    static PyMethodDef definition = {"forget_numbers", forget_numbers, METH_NOARGS, NULL};
    individual = must(PyDict_New());
    must_set(individual, "forget_numbers", PyCFunction_New(&definition, NULL));
    must_set(individual, "completions", Py_NewRef(completions));
    run_hidden("/usr/lib/sandbox/individual.py", "<frozen importlib._bootstrap_external>", individual);
    become_another = must(PyDict_GetItemString(individual, "become_another"));
}
