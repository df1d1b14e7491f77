/*
 * Lines of code that was given as text, in tracebacks. The interpreter shows lines of files only: while
 * it prints an exception, the code is in one, and is named after it.
 */
#include "warm.h"

#include <sys/mman.h>
#include <unistd.h>

/* _imp._fix_co_filename: gives another name to code, and to the code in it. */
static PyObject *rename_code;

static PyObject *source, *pieces, *name, *path;
static int file = -1;

void prepare_source(void)
{
    rename_code = must(PyObject_GetAttrString(must(PyImport_ImportModule("_imp")), "_fix_co_filename"));
}

void know_source(PyObject *text, PyObject *code, const char *named)
{
    source = Py_NewRef(text);
    pieces = Py_NewRef(code);
    name = must(PyUnicode_FromString(named));
}

static void name_pieces(PyObject *as)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(pieces); i++)
        Py_XDECREF(PyObject_CallFunctionObjArgs(rename_code, PyList_GET_ITEM(pieces, i), as, NULL));
    PyErr_Clear();
}

/* A file in memory, whose name holds only for this process. */
static int put_into_file(void)
{
    Py_ssize_t length;
    const char *text = PyUnicode_AsUTF8AndSize(source, &length);
    int fd = text == NULL ? -1 : memfd_create("code", MFD_CLOEXEC);
    while (fd >= 0 && length > 0) {
        ssize_t count = write(fd, text, length);
        if (count <= 0) {
            close(fd);
            return -1;
        }
        text += count, length -= count;
    }
    return fd;
}

void open_source(void)
{
    if (pieces == NULL || file >= 0 || (file = put_into_file()) < 0) {
        PyErr_Clear();
        return;
    }
    path = PyUnicode_FromFormat("/proc/self/fd/%d", file);
    if (path == NULL)
        close_source();
    else
        name_pieces(path);
}

void close_source(void)
{
    if (file < 0)
        return;
    if (path != NULL)
        name_pieces(name);
    Py_CLEAR(path);
    close(file);
    file = -1;
}

/* Only where it names the file of a line, not in a message of the program's. */
PyObject *with_name_of_source(PyObject *text)
{
    PyObject *start = path == NULL ? NULL : PyUnicode_FromFormat("  File \"%U\"", path);
    int names = start != NULL && PyUnicode_Tailmatch(text, start, 0, PY_SSIZE_T_MAX, -1) > 0;
    Py_XDECREF(start);
    return names ? PyUnicode_Replace(text, path, name, 1) : Py_NewRef(text);
}
