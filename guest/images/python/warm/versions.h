/*
 * What differs between the versions of CPython that these files were checked with. They lean on its
 * internals: check each use anew before another version is let in.
 */
#ifndef VERSIONS_H
#define VERSIONS_H

#include <internal/pycore_namespace.h>
#include <internal/pycore_pylifecycle.h>
#include <internal/pycore_pystate.h>
#include <internal/pycore_runtime.h>

#if PY_VERSION_HEX >> 16 == 0x030b

/* Lines of code that is in no file are not in its tracebacks: source.c puts them there. */
enum { KNOWS_LINES = 0 };
#define COUNTS_NO_IMMORTALS 0
#define INTERRUPTED _Py_UnhandledKeyboardInterrupt
#define AUDIT_HOOKS _PyRuntime.audit_hook_head
#define EXIT_FUNCTIONS _PyRuntime.exitfuncs
#define EXIT_FUNCTION_COUNT _PyRuntime.nexitfuncs

static inline void know_path0(PyObject *path)
{
}

#elif PY_VERSION_HEX >> 16 == 0x030d

/* linecache holds the lines of code that is in no file, and is loaded for that. */
enum { KNOWS_LINES = 1 };
/* Whether there are objects to which references are not counted. */
#define COUNTS_NO_IMMORTALS 1
#define INTERRUPTED _PyRuntime.signals.unhandled_keyboard_interrupt
#define AUDIT_HOOKS _PyRuntime.audit_hooks.head
#define EXIT_FUNCTIONS _PyRuntime.atexit.callbacks
#define EXIT_FUNCTION_COUNT _PyRuntime.atexit.ncallbacks

/* As pymain_run_python does: messages that know shadowed modules look there, and other interpreters. */
static inline void know_path0(PyObject *path)
{
    PyConfig *config = (PyConfig *)_Py_GetConfig();
    PyMem_RawFree(config->sys_path_0);
    config->sys_path_0 = Py_DecodeLocale(PyBytes_AS_STRING(PyUnicode_EncodeFSDefault(path)), NULL);
}

#else
#error "these files were checked with CPython 3.11 and 3.13, and lean on the internals of those"
#endif

#endif
