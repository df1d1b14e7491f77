/*
 * Lines of code that was given as text, in tracebacks. An interpreter that shows lines of files only has
 * the code in one while it prints an exception, and names it after that.
 */
#include "warm.h"

#include <sys/mman.h>
#include <unistd.h>

/* _imp._fix_co_filename: gives another name to code, and to the code in it. */
static PyObject *rename_code;

static PyObject *source, *pieces, *name, *path;
static int file = -1;

/* Where the interpreter knows such lines itself: the module, which is loaded for that. */
PyObject *linecache;
static PyObject *register_code;

/* What looking for it leaves behind: a finder for this directory. */
static PyObject *directory, *finder;

static PyObject *finders(void)
{
    return must(PySys_GetObject("path_importer_cache"));
}

static void load_linecache(void)
{
    linecache = must(PyImport_ImportModule("linecache"));
    register_code = must(PyObject_GetAttrString(linecache, "_register_code"));
    if (PyDict_DelItemString(PyImport_GetModuleDict(), "linecache") < 0)
        must(NULL);
    directory = must(PyUnicode_DecodeFSDefault(work));
    finder = Py_XNewRef(PyDict_GetItem(finders(), directory));
    if (finder == NULL)
        return;
    Py_DECREF(must(PyObject_CallMethod(finder, "invalidate_caches", NULL)));
    if (PyDict_DelItem(finders(), directory) < 0)
        must(NULL);
}

static void leave_finder(void)
{
    PyObject *here = must(PyUnicode_DecodeFSDefault(work));
    if (PyUnicode_Compare(here, directory) != 0)
        Py_XDECREF(PyImport_GetImporter(here));
    else if (finder != NULL && PyDict_SetItem(finders(), directory, finder) < 0)
        must(NULL);
    Py_DECREF(here);
}

void prepare_source(void)
{
    if (KNOWS_LINES)
        load_linecache();
    rename_code = must(PyObject_GetAttrString(must(PyImport_ImportModule("_imp")), "_fix_co_filename"));
}

/* As run_mod does for a command. */
void register_source(PyObject *text, PyObject *code, const char *named)
{
    if (!KNOWS_LINES)
        return;
    if (PyDict_SetItemString(PyImport_GetModuleDict(), "linecache", linecache) < 0)
        must(NULL);
    leave_finder();
    Py_DECREF(must(PyObject_CallFunction(register_code, "OOs", code, text, named)));
}

/* Python learns what usually comes, and makes its code for it. */
void rehearse_source(void)
{
    if (!KNOWS_LINES)
        return;
    PyObject *text = must(PyUnicode_FromString("0\n")), *code = must(Py_CompileString("0\n", "<string>", Py_file_input));
    for (int i = 0; i < 20; i++)
        Py_DECREF(must(PyObject_CallFunction(register_code, "OOs", code, text, "<string>")));
    PyDict_Clear(must(PyObject_GetAttrString(linecache, "_interactive_cache")));
    Py_DECREF(text), Py_DECREF(code);
}

void know_source(PyObject *text, PyObject *code, const char *named)
{
    if (KNOWS_LINES)
        return;
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
