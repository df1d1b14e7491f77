/*
 * What all files here use.
 */
#include "warm.h"

#include <errno.h>
#include <unistd.h>

const char *work = "/work";

void fail(const char *what)
{
    fprintf(stderr, "sandbox: the warm interpreter cannot start the program: %s: %s\n", what, strerror(errno));
    _exit(125);
}

PyObject *must(PyObject *object)
{
    if (object == NULL) {
        PyErr_Print();
        fail("preparing the interpreter");
    }
    return object;
}

void must_set(PyObject *globals, const char *name, PyObject *value)
{
    if (PyDict_SetItemString(globals, name, must(value)) < 0)
        must(NULL);
}

PyObject *decode(struct bytes bytes)
{
    return must(PyUnicode_DecodeFSDefaultAndSize(bytes.data, bytes.length));
}
