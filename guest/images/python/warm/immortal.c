/*
 * Objects that live as long as the interpreter (PEP 683): nobody counts references to them, which would
 * be a write to a page for each that is looked at, and so a copy of the page in each clone.
 */
#include "warm.h"

#if COUNTS_NO_IMMORTALS

/*
 * Objects whose end nobody notices, by themselves or by what they hold: what a module is made of. What
 * others may own alone, as a list or the dictionary of an instance, must go with its owner, or what it
 * holds never would.
 */
static int is_of_module(PyObject *object)
{
    static PyTypeObject *const types[] = {
        &PyUnicode_Type, &PyBytes_Type, &PyLong_Type, &PyFloat_Type, &PyComplex_Type, &PyTuple_Type, &PyFrozenSet_Type,
        &PyCode_Type, &PyFunction_Type, &PyCFunction_Type, &PyMethodDescr_Type, &PyGetSetDescr_Type, &PyMemberDescr_Type,
        &PyWrapperDescr_Type, &PyClassMethodDescr_Type, &PyStaticMethod_Type, &PyClassMethod_Type, &PyProperty_Type,
        &PyCell_Type,
    };
    static const char *const names[] = {"cython_function_or_method", "fused_cython_function", "ufunc"};
    if (PyType_Check(object) || PyModule_Check(object))
        return 1;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (Py_IS_TYPE(object, types[i]))
            return 1;
    }
    /* Those of extensions have the extension's name before a dot. */
    const char *name = Py_TYPE(object)->tp_name, *dot = strrchr(name, '.');
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(dot == NULL ? name : dot + 1, names[i]) == 0)
            return 1;
    }
    return 0;
}

/* The program's module goes with the program. */
static PyObject *program;

static void make_one(PyObject *object)
{
    if (object == program)
        return;
    object->ob_refcnt = _Py_IMMORTAL_REFCNT;
    if (PyModule_Check(object))
        PyModule_GetDict(object)->ob_refcnt = _Py_IMMORTAL_REFCNT;
}

/* What the collector knows comes by itself; other objects are only held by those. */
static int visit(PyObject *object, void *nothing)
{
    if (_Py_IsImmortal(object) || !is_of_module(object))
        return 0;
    make_one(object);
    traverseproc traverse = Py_TYPE(object)->tp_traverse;
    if (traverse != NULL && !(PyObject_IS_GC(object) && PyObject_GC_IsTracked(object)))
        traverse(object, visit, NULL);
    return 0;
}

static int visit_tracked(PyObject *object, void *nothing)
{
    if (!_Py_IsImmortal(object) && is_of_module(object))
        make_one(object);
    traverseproc traverse = Py_TYPE(object)->tp_traverse;
    if (traverse != NULL)
        traverse(object, visit, NULL);
    return 1;
}

void make_immortal(void)
{
    program = must(PyImport_AddModule("__main__"));
    PyUnstable_GC_VisitObjects(visit_tracked, NULL);
}

#else

void make_immortal(void)
{
}

#endif
