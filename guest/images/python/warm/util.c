/*
 * What all files here use.
 */
#include "warm.h"

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
