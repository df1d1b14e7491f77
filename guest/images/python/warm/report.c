/*
 * What is told of the program beside its output, by a prctl(2) of our kernel's ("host services"):
 * the exception that ended it, and, as in a notebook, what it displays and its last value.
 */
#include "warm.h"
#include <internal/pycore_namespace.h>
#include <internal/pycore_pyerrors.h>
#include <internal/pycore_pylifecycle.h>

#include <sys/prctl.h>

#define PR_HOST_TELL 0x484f5304

/* Kinds of records: guest/src/report.rs. */
enum {
    EXCEPTION = 1, /* type, message, traceback */
    RESULT = 2,    /* MIME type, data, and so on */
    DISPLAY = 3,
};

/* Bytes of a text: more of it is of no use to anybody. */
#define TEXT_MAX (60 << 10)

/* Of the interpreter, whatever the program makes of it. */
static PyObject *usual_hook, *compile, *expression, *statement, *forms;

static char *put(char *at, const void *data, uint32_t length)
{
    memcpy(at, &length, sizeof length);
    return mempcpy(at + sizeof length, data, length);
}

/* A record of these byte strings. */
static void tell(char kind, PyObject *fields)
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

/* Consumes the text; of a long one, the start and the end. */
static PyObject *encoded(PyObject *text)
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
 * the one that sys.stderr was, in whose place it is until the end of the text.
 */
static PyObject *stream, *console, *text, *exception;

static PyObject *write_text(PyObject *self, PyObject *piece)
{
    if (PyUnicode_Check(piece) && PyList_Append(text, piece) < 0)
        PyErr_Clear();
    if (console == NULL || console == Py_None)
        Py_RETURN_NONE;
    return PyObject_CallMethod(console, "write", "O", piece);
}

static PyObject *end_text(PyObject *self, PyObject *arguments)
{
    if (console != NULL && PySys_GetObject("stderr") == stream)
        PySys_SetObject("stderr", console);
    if (exception != NULL) {
        PyObject *nothing = PyUnicode_New(0, 0);
        PyObject *traceback = encoded(PyUnicode_Join(nothing, text));
        if (traceback != NULL && PyList_Append(exception, traceback) == 0)
            tell(EXCEPTION, exception);
        PyErr_Clear();
        Py_CLEAR(exception);
    }
    if (console == NULL || console == Py_None)
        Py_RETURN_NONE;
    return PyObject_CallMethod(console, "flush", NULL);
}

static PyObject *make_stream(void)
{
    static PyMethodDef write = {"write", write_text, METH_O, NULL}, flush = {"flush", end_text, METH_NOARGS, NULL};
    PyObject *methods = Py_BuildValue("{sNsN}", "write", PyCFunction_New(&write, NULL), "flush",
                                      PyCFunction_New(&flush, NULL));
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
    exception = Py_BuildValue("[NN]", encoded(type_name((PyObject *)Py_TYPE(value))), encoded(message(value)));
    text = PyList_New(0);
    stream = make_stream();
    if (exception == NULL || text == NULL || stream == NULL) {
        PyErr_Clear();
        return;
    }
    if (hook == usual_hook) {
        console = Py_XNewRef(PySys_GetObject("stderr"));
        PySys_SetObject("stderr", stream);
    } else {
        _PyErr_Display(stream, type, value, traceback);
    }
    PyErr_Clear();
}

/* Without a frame of ours in what a tracer or a traceback sees. */
static int show(char kind, PyObject *value)
{
    PyThreadState *thread = PyThreadState_Get();
    PyThreadState_EnterTracing(thread);
    PyObject *fields = PyObject_CallOneArg(forms, value);
    PyThreadState_LeaveTracing(thread);
    if (fields != NULL) {
        tell(kind, fields);
        Py_DECREF(fields);
        return 0;
    }
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    Py_XDECREF(traceback);
    PyErr_Restore(type, error, NULL);
    return -1;
}

static PyObject *display(PyObject *self, PyObject *objects)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(objects); i++) {
        if (show(DISPLAY, PyTuple_GET_ITEM(objects, i)) < 0)
            return NULL;
    }
    Py_RETURN_NONE;
}

/* The last statement, taken out of a syntax tree, if it is an expression. */
static PyObject *take_last(PyObject *tree)
{
    PyObject *body = PyObject_GetAttrString(tree, "body");
    Py_ssize_t last = PyList_Size(body) - 1;
    if (last < 0 || (PyObject *)Py_TYPE(PyList_GET_ITEM(body, last)) != statement)
        return NULL;
    PyObject *value = PyObject_GetAttrString(PyList_GET_ITEM(body, last), "value");
    if (PyList_SetSlice(body, last, last + 1, NULL) < 0)
        return NULL;
    return PyObject_CallOneArg(expression, value);
}

static PyObject *run(PyObject *tree, const char *mode, PyObject *globals)
{
    PyObject *code = PyObject_CallFunction(compile, "Ossii", tree, "<string>", mode, 0, 1);
    PyObject *value = code == NULL ? NULL : PyEval_EvalCode(code, globals, globals);
    Py_XDECREF(code);
    return value;
}

/* As PyRun_StringFlags does, but for the value of the last expression. */
PyObject *run_cell(const char *code, PyObject *globals, PyCompilerFlags *flags)
{
    static PyMethodDef definition = {"display", display, METH_VARARGS, NULL};
    PyObject *builtins = PyEval_GetBuiltins();
    must_set(builtins, "display", PyCFunction_New(&definition, NULL));
    PyCompilerFlags only_tree = *flags;
    only_tree.cf_flags |= PyCF_ONLY_AST;
    PyObject *tree = Py_CompileStringExFlags(code, "<string>", Py_file_input, &only_tree, -1);
    PyObject *last = tree == NULL ? NULL : take_last(tree);
    if (last == NULL) {
        /* Whatever is wrong with it shows again. */
        PyErr_Clear();
        return PyRun_StringFlags(code, Py_file_input, globals, globals, flags);
    }
    PyObject *value = run(tree, "exec", globals);
    if (value != NULL)
        value = run(last, "eval", globals);
    if (value != NULL && value != Py_None) {
        must_set(builtins, "_", value);
        if (show(RESULT, value) < 0)
            value = NULL;
    }
    _Py_UnhandledKeyboardInterrupt |= PyErr_Occurred() == PyExc_KeyboardInterrupt;
    return value;
}

/* What the interpreter has of its own, and notebook.py. */
void prepare_reports(void)
{
    PyObject *globals = must(PyDict_New());
    usual_hook = Py_NewRef(must(PySys_GetObject("excepthook")));
    compile = Py_NewRef(must(PyDict_GetItemString(PyEval_GetBuiltins(), "compile")));
    run_hidden("/usr/lib/sandbox/notebook.py", "<notebook>", globals);
    forms = must(PyDict_GetItemString(globals, "forms"));
    expression = must(PyDict_GetItemString(globals, "Expression"));
    statement = must(PyDict_GetItemString(globals, "Expr"));
}
