/*
 * What is told of the program beside its output, by a prctl(2) of our kernel's ("host services"):
 * the exception that ended it, the module that it lacked, and what cell.c tells.
 */
#include "warm.h"

#include <sys/prctl.h>

#define PR_HOST_TELL 0x484f5304

/* Bytes of a text: more of it is of no use to anybody. */
#define TEXT_MAX (60 << 10)

/* Of the interpreter, whatever the program makes of it. */
static PyObject *usual_hook;

/* The audit hook, which is taken out until it is wanted, and whether the exceptions that it hears of are told. */
static _Py_AuditHookEntry *hook;
static int is_told;

static char *put(char *at, const void *data, uint32_t length)
{
    memcpy(at, &length, sizeof length);
    return mempcpy(at + sizeof length, data, length);
}

void tell(char kind, PyObject *fields)
{
    size_t length = 0;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(fields); i++)
        length += sizeof(uint32_t) + PyBytes_GET_SIZE(PyList_GET_ITEM(fields, i));
    char *record = length > UINT32_MAX ? NULL : malloc(1 + sizeof(uint32_t) + length);
    if (record == NULL)
        return;
    uint32_t rest = length;
    record[0] = kind;
    char *at = mempcpy(record + 1, &rest, sizeof rest);
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(fields); i++) {
        PyObject *field = PyList_GET_ITEM(fields, i);
        at = put(at, PyBytes_AS_STRING(field), PyBytes_GET_SIZE(field));
    }
    prctl(PR_HOST_TELL, record, at - record);
    free(record);
}

PyObject *encoded(PyObject *text)
{
    PyObject *bytes = text == NULL ? NULL : PyUnicode_AsEncodedString(text, "utf-8", "backslashreplace");
    Py_XDECREF(text);
    if (bytes == NULL) {
        PyErr_Clear();
        return PyBytes_FromString("");
    }
    Py_ssize_t length = PyBytes_GET_SIZE(bytes);
    if (length > TEXT_MAX) {
        static const char gap[] = "\n[...]\n";
        char *data = PyBytes_AS_STRING(bytes), *middle = data + TEXT_MAX / 2;
        memcpy(middle, gap, sizeof gap - 1);
        memmove(middle + sizeof gap - 1, data + length - TEXT_MAX / 2, TEXT_MAX / 2);
        _PyBytes_Resize(&bytes, TEXT_MAX + sizeof gap - 1);
    }
    return bytes;
}

static PyObject *type_name(PyObject *type)
{
    PyObject *module = PyObject_GetAttrString(type, "__module__"), *name = PyType_GetQualName((PyTypeObject *)type);
    int plain = module == NULL || !PyUnicode_Check(module) || PyUnicode_CompareWithASCIIString(module, "builtins") == 0;
    PyObject *full = plain || name == NULL ? Py_XNewRef(name) : PyUnicode_FromFormat("%U.%U", module, name);
    Py_XDECREF(module), Py_XDECREF(name);
    PyErr_Clear();
    return full;
}

static PyObject *message(PyObject *value)
{
    PyObject *text = PyObject_Str(value);
    if (text == NULL) {
        PyErr_Clear();
        text = PyUnicode_FromString("<exception str() failed>");
    }
    return text;
}

/*
 * The stream to which the interpreter prints the exception: it keeps the text, and passes it on to
 * the console, if there is one. It takes the place of sys.stderr, until the first word or the end of
 * the text, which is told by a flush or is where nobody has the stream any more.
 */
static PyObject *stream, *replaced, *console, *text, *exception;

static void take_place_of_stderr(void)
{
    replaced = Py_XNewRef(PySys_GetObject("stderr"));
    PySys_SetObject("stderr", stream);
}

static void give_place_back(void)
{
    if (replaced != NULL && PySys_GetObject("stderr") == stream)
        PySys_SetObject("stderr", replaced);
    Py_CLEAR(replaced);
}

static PyObject *write_text(PyObject *self, PyObject *written)
{
    if (KNOWS_LINES)
        give_place_back();
    PyObject *piece = PyUnicode_Check(written) ? with_name_of_source(written) : NULL, *result = Py_None;
    if (piece == NULL || PyList_Append(text, piece) < 0)
        PyErr_Clear();
    if (piece != NULL && console != NULL && console != Py_None)
        result = PyObject_CallMethod(console, "write", "O", piece);
    Py_XDECREF(piece);
    return Py_XNewRef(result);
}

static void end_text(void)
{
    close_source();
    if (exception != NULL) {
        PyObject *nothing = PyUnicode_New(0, 0);
        PyObject *traceback = encoded(PyUnicode_Join(nothing, text));
        if (traceback != NULL && PyList_Append(exception, traceback) == 0)
            tell(EXCEPTION, exception);
        PyErr_Clear();
        Py_CLEAR(exception);
    }
}

static PyObject *flush_text(PyObject *self, PyObject *arguments)
{
    give_place_back();
    end_text();
    if (console == NULL || console == Py_None)
        Py_RETURN_NONE;
    return PyObject_CallMethod(console, "flush", NULL);
}

static void end_stream(PyObject *capsule)
{
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    end_text();
    PyErr_Restore(type, error, traceback);
}

static PyObject *make_stream(void)
{
    static PyMethodDef write = {"write", write_text, METH_O, NULL}, flush = {"flush", flush_text, METH_NOARGS, NULL};
    static char something;
    PyObject *methods = Py_BuildValue("{sNsNsN}", "write", PyCFunction_New(&write, NULL), "flush",
                                      PyCFunction_New(&flush, NULL), "end", PyCapsule_New(&something, NULL, end_stream));
    /* What text is in colours for. */
    PyObject *number = methods == NULL || console == NULL ? NULL : PyObject_GetAttrString(console, "fileno");
    if (number == NULL || PyDict_SetItemString(methods, "fileno", number) < 0)
        PyErr_Clear();
    Py_XDECREF(number);
    PyObject *made = methods == NULL ? NULL : _PyNamespace_New(methods);
    Py_XDECREF(methods);
    return made;
}

/* On the audit event before an exception that nobody caught is given to sys.excepthook. */
void report_exception(PyObject *arguments)
{
    PyObject *hook, *type, *value, *traceback;
    if (!PyArg_ParseTuple(arguments, "OOOO", &hook, &type, &value, &traceback) || !PyExceptionInstance_Check(value)) {
        PyErr_Clear();
        return;
    }
    if (is_told)
        exception = Py_BuildValue("[NN]", encoded(type_name((PyObject *)Py_TYPE(value))), encoded(message(value)));
    text = PyList_New(0);
    int is_usual = hook == usual_hook;
    console = is_usual ? Py_XNewRef(PySys_GetObject("stderr")) : NULL;
    stream = make_stream();
    if ((is_told && exception == NULL) || text == NULL || stream == NULL) {
        PyErr_Clear();
        return;
    }
    open_source();
    if (is_usual || is_told)
        take_place_of_stderr();
    if (!is_usual && is_told) {
        PyErr_Display(type, value, traceback);
        give_place_back();
    }
    if (KNOWS_LINES)
        Py_DECREF(stream);
    PyErr_Clear();
}

/*
 * Before an exception that ends the program is shown: its type and message, if a module is missing and
 * the whole is not told. No code of the program runs for it.
 */
void report_missing_module(void)
{
    PyObject *type, *value, *traceback;
    if (is_told || !PyErr_ExceptionMatches(PyExc_ModuleNotFoundError))
        return;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    PyObject *text = ((PyImportErrorObject *)value)->msg;
    if ((PyObject *)Py_TYPE(value) == PyExc_ModuleNotFoundError && text != NULL && PyUnicode_CheckExact(text)) {
        PyObject *fields = Py_BuildValue("[yNy]", "ModuleNotFoundError", encoded(Py_NewRef(text)), "");
        if (fields != NULL)
            tell(EXCEPTION, fields);
        Py_XDECREF(fields);
        PyErr_Clear();
    }
    PyErr_Restore(type, value, traceback);
}

void drop_traceback(void)
{
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    Py_XDECREF(traceback);
    PyErr_Restore(type, error, NULL);
}

void prepare_reports(void)
{
    usual_hook = Py_NewRef(must(PySys_GetObject("excepthook")));
    hook = AUDIT_HOOKS;
    AUDIT_HOOKS = NULL;
}

void hear_exceptions(int are_told)
{
    is_told |= are_told;
    AUDIT_HOOKS = hook;
}
