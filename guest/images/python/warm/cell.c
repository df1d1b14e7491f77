/*
 * Code as a cell of a notebook: what it displays is told, and the value of its last expression.
 */
#include "warm.h"

/* Of cell.py and notebook.py, whatever the program makes of them. */
static PyObject *forms, *handle, *compiled, *explain, *run_in_loop, *begin, *builtin_display, *take_figures, *count_figures;

PyObject *complete, *completions;

/* What a value offers; if that cannot be found out, its repr() alone. */
static PyObject *fields_of(PyObject *value, int raw)
{
    PyObject *fields = PyObject_CallFunction(forms, "Oi", value, raw);
    if (fields != NULL || !PyErr_ExceptionMatches(PyExc_Exception))
        return fields;
    PyErr_Clear();
    PyObject *plain = PyObject_Repr(value);
    PyErr_Clear();
    return Py_BuildValue("[yN]", "text/plain", encoded(plain));
}

/* Without a frame of ours in what a tracer or a traceback sees. */
static int show(char kind, PyObject *value, int raw)
{
    PyThreadState *thread = PyThreadState_Get();
    PyThreadState_EnterTracing(thread);
    PyObject *fields = fields_of(value, raw);
    PyThreadState_LeaveTracing(thread);
    if (fields == NULL) {
        drop_traceback();
        return -1;
    }
    tell(kind, fields);
    Py_DECREF(fields);
    return 0;
}

static int is_option(PyObject *options, const char *name)
{
    PyObject *value = options == NULL ? NULL : PyDict_GetItemString(options, name);
    return value != NULL && PyObject_IsTrue(value) > 0;
}

/* As IPython's, whose other options have no meaning here. */
static PyObject *display(PyObject *self, PyObject *objects, PyObject *options)
{
    int raw = is_option(options, "raw"), kept = is_option(options, "display_id");
    PyErr_Clear();
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(objects); i++) {
        if (show(DISPLAY, PyTuple_GET_ITEM(objects, i), raw) < 0)
            return NULL;
    }
    if (!kept)
        Py_RETURN_NONE;
    return PyObject_CallOneArg(handle, PyDict_GetItemString(options, "display_id"));
}

/* The frames before the first one of the cell are the event loop's. */
static void drop_frames_of_loop(PyObject *pieces)
{
    PyObject *type, *value, *traceback, *at;
    PyErr_Fetch(&type, &value, &traceback);
    for (at = traceback; at != NULL; at = (PyObject *)((PyTracebackObject *)at)->tb_next) {
        PyObject *code = (PyObject *)PyFrame_GetCode(((PyTracebackObject *)at)->tb_frame);
        int found = PySequence_Contains(pieces, code);
        Py_DECREF(code);
        if (found > 0)
            break;
    }
    if (at != NULL && value != NULL && PyExceptionInstance_Check(value))
        PyException_SetTraceback(value, at);
    PyErr_Restore(type, value, at == NULL ? traceback : Py_NewRef(at));
}

static PyObject *run_pieces(PyObject *pieces, int awaits, PyObject *globals)
{
    PyObject *value = NULL;
    if (awaits) {
        value = PyObject_CallFunctionObjArgs(run_in_loop, pieces, globals, NULL);
        if (value == NULL)
            drop_frames_of_loop(pieces);
        return value;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(pieces); i++) {
        Py_XDECREF(value);
        value = PyEval_EvalCode(PyList_GET_ITEM(pieces, i), globals, globals);
        if (value == NULL)
            break;
    }
    return value;
}

void explain_error(PyObject *text, int is_cell)
{
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    PyObject *result = error == NULL ? NULL : PyObject_CallFunction(explain, "OOi", error, text, is_cell);
    Py_XDECREF(result);
    PyErr_Clear();
    Py_XDECREF(traceback);
    PyErr_Restore(type, error, NULL);
}

void show_figures(void)
{
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyObject *figures = PyObject_CallNoArgs(take_figures);
    for (Py_ssize_t i = 0; figures != NULL && i < PyList_GET_SIZE(figures); i++) {
        if (show(DISPLAY, PyList_GET_ITEM(figures, i), 0) < 0)
            break;
    }
    PyErr_Clear();
    Py_XDECREF(figures);
    PyErr_Restore(type, error, traceback);
}

/* Figures that nobody will see, since what a program displays is not told. */
void tell_lost_figures(void)
{
    uint32_t open, undrawn;
    if (PyDict_GetItemString(PyImport_GetModuleDict(), "matplotlib._pylab_helpers") == NULL)
        return;
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyObject *counts = PyObject_CallNoArgs(count_figures);
    if (counts != NULL && PyArg_ParseTuple(counts, "II", &open, &undrawn) && open > 0) {
        PyObject *fields = must(Py_BuildValue("[y#y#]", &open, sizeof open, &undrawn, sizeof undrawn));
        tell(LOST, fields);
        Py_DECREF(fields);
    }
    PyErr_Clear();
    Py_XDECREF(counts);
    PyErr_Restore(type, error, traceback);
}

PyObject *run_cell(PyObject *text, PyObject *globals, const char *name)
{
    PyObject *builtins = PyEval_GetBuiltins(), *pieces, *cell = PyObject_CallFunction(compiled, "Os", text, name);
    int awaits;
    if (cell == NULL || !PyArg_ParseTuple(cell, "UOp", &text, &pieces, &awaits)) {
        explain_error(text, 1);
        return NULL;
    }
    know_source(text, pieces, name);
    must_set(builtins, "display", builtin_display);
    /* It may be interrupted as well. */
    PyObject *begun = PyObject_CallFunction(begin, "Os", text, name);
    PyObject *value = begun == NULL ? NULL : run_pieces(pieces, awaits, globals);
    Py_XDECREF(begun);
    if (value != NULL && value != Py_None) {
        must_set(builtins, "_", value);
        if (show(RESULT, value, 0) < 0)
            Py_CLEAR(value);
    }
    INTERRUPTED |= PyErr_Occurred() == PyExc_KeyboardInterrupt;
    Py_DECREF(cell);
    return value;
}

/* What the first cell would make on its way is made now, and Python learns what usually comes. */
void rehearse_cells(void)
{
    PyObject *text = must(PyUnicode_FromString("0\n")), *number = must(PyLong_FromLong(0));
    for (int i = 0; i < 20; i++) {
        Py_DECREF(must(PyObject_CallFunction(compiled, "Os", text, "<code>")));
        Py_DECREF(must(fields_of(number, 0)));
    }
    Py_DECREF(text), Py_DECREF(number);
}

void prepare_cells(void)
{
    static PyMethodDef definition = {"display", (PyCFunction)(void (*)(void))display, METH_VARARGS | METH_KEYWORDS, NULL};
    PyObject *globals = must(PyDict_New());
    builtin_display = must(PyCFunction_New(&definition, NULL));
    must_set(globals, "display", builtin_display);
    run_hidden("/usr/lib/sandbox/notebook.py", "<notebook>", globals);
    forms = must(PyDict_GetItemString(globals, "forms"));
    handle = must(PyDict_GetItemString(globals, "DisplayHandle"));
    take_figures = must(PyDict_GetItemString(globals, "take_figures"));
    count_figures = must(PyDict_GetItemString(globals, "count_figures"));
    PyObject *show_figures = must(PyDict_GetItemString(globals, "show_figures"));
    /* Named as the import system, whose frames no traceback shows: modules are imported through it. */
    globals = must(PyDict_New());
    must_set(globals, "show_figures", Py_NewRef(show_figures));
    run_hidden("/usr/lib/sandbox/cell.py", "<frozen importlib._bootstrap_external>", globals);
    compiled = must(PyDict_GetItemString(globals, "compiled"));
    explain = must(PyDict_GetItemString(globals, "explain"));
    run_in_loop = must(PyDict_GetItemString(globals, "run_in_loop"));
    begin = must(PyDict_GetItemString(globals, "begin"));
    complete = must(PyDict_GetItemString(globals, "complete"));
    completions = must(PyDict_GetItemString(globals, "completions"));
}
