/*
 * Output on a terminal, or for somebody who waits for each line.
 */
#include "warm.h"

/* As the interpreter makes its output when it starts on a terminal (pylifecycle.c: create_stdio). */
void buffer_lines(void)
{
    PyObject *output = must(PySys_GetObject("stdout"));
    PyObject *method = must(PyObject_GetAttrString(output, "reconfigure"));
    PyObject *none = must(PyTuple_New(0)), *options = must(Py_BuildValue("{s:O}", "line_buffering", Py_True));
    must(PyObject_Call(method, none, options));
    Py_DECREF(options), Py_DECREF(none), Py_DECREF(method);
}
