/*
 * Runs the program, as CPython's Modules/main.c does.
 */
#include "warm.h"

#include <errno.h>
#include <signal.h>
#include <unistd.h>

/* The C library and the time module read the variable when they start. */
static void set_zone(void)
{
    PyObject *time = must(PyImport_ImportModule("time"));
    Py_DECREF(must(PyObject_CallMethod(time, "tzset", NULL)));
    Py_DECREF(time);
}

/* The environment that the template was made with is in place; what differs is set. */
static void set_environment(const struct list *env)
{
    for (uint32_t i = 0; i < env->count; i++) {
        char *name = copy_of(env->items[i]), *value = strchr(name, '=');
        if (value == NULL)
            continue;
        *value++ = 0;
        const char *present = getenv(name);
        if (present == NULL || strcmp(present, value) != 0) {
            PyObject *os = must(PyImport_ImportModule("os"));
            PyObject *environ = must(PyObject_GetAttrString(os, "environ"));
            PyObject *key = must(PyUnicode_DecodeFSDefault(name)), *item = must(PyUnicode_DecodeFSDefault(value));
            if (PyObject_SetItem(environ, key, item) < 0)
                must(NULL);
            Py_DECREF(key), Py_DECREF(item), Py_DECREF(environ), Py_DECREF(os);
            if (strcmp(name, "TZ") == 0)
                set_zone();
        }
        free(name);
    }
}

static void set_sys(const char *name, PyObject *value)
{
    if (PySys_SetObject(name, value) < 0)
        must(NULL);
}

/* sys.path[0], as _PyPathConfig_ComputeSysPath0 finds it: where the script is; for code, "". */
static void set_path0(struct bytes script)
{
    PyObject *path = PySys_GetObject("path");
    const char *name = memrchr(script.data, '/', script.length);
    name = name == NULL ? script.data : name + 1;
    const char *dot = memchr(name, '.', script.data + script.length - name);
    size_t stem = (dot == NULL ? script.data + script.length : dot) - name;
    if (hidden != NULL && PyList_Append(hidden, decode((struct bytes){name, stem})) < 0)
        must(NULL);
    while (script.length > 0 && script.data[script.length - 1] != '/')
        script.length--;
    if (script.length > 0)
        script.length--;
    PyObject *directory = must(PyUnicode_FromFormat("%s%s%U", work, script.length ? "/" : "", decode(script)));
    know_path0(directory);
    if (path == NULL || PyList_SetItem(path, 0, directory) < 0)
        must(NULL);
}

/* As handle_system_exit does: the status that sys.exit() was given, or 1 and what it was given instead. */
static int status_of_exit(void)
{
    PyObject *type, *error, *traceback, *output = PySys_GetObject("stderr");
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    fflush(stdout);
    PyObject *code = PyObject_GetAttrString(error, "code");
    PyErr_Clear();
    if (code == Py_None)
        return 0;
    if (code != NULL && PyLong_Check(code))
        return (int)PyLong_AsLong(code);
    if (output != NULL && output != Py_None)
        PyFile_WriteObject(code == NULL ? error : code, output, Py_PRINT_RAW);
    else
        PyObject_Print(code == NULL ? error : code, stderr, Py_PRINT_RAW), fflush(stderr);
    PyErr_Clear();
    PySys_WriteStderr("\n");
    return 1;
}

/* The exit status of a program that gave this, or raised an exception, which is shown. */
static int status_of(PyObject *result)
{
    int status = 0;
    if (result == NULL && PyErr_ExceptionMatches(PyExc_SystemExit)) {
        status = status_of_exit();
    } else if (result == NULL) {
        report_missing_module();
        PyErr_Print();
        status = 1;
    }
    if (PyErr_Occurred())
        PyErr_Clear();
    return status;
}

/* As PyRun_StringFlags does, but that a traceback will have the lines of the text. */
static PyObject *run_text(PyObject *text, const char *utf8, PyObject *globals)
{
    static const char name[] = "<string>";
    PyCompilerFlags flags = _PyCompilerFlags_INIT;
    flags.cf_flags |= PyCF_IGNORE_COOKIE;
    PyObject *code = Py_CompileStringExFlags(utf8, name, Py_file_input, &flags, -1);
    if (code != NULL)
        register_source(text, code, name);
    PyObject *value = code == NULL ? NULL : PyEval_EvalCode(code, globals, globals);
    if (code == NULL && !KNOWS_LINES)
        explain_error(text, 0);
    else if (code != NULL && value == NULL && !KNOWS_LINES) {
        PyObject *type, *error, *traceback;
        PyErr_Fetch(&type, &error, &traceback);
        know_source(text, must(Py_BuildValue("[O]", code)), name);
        PyErr_Restore(type, error, traceback);
        hear_exceptions(0);
    }
    Py_XDECREF(code);
    INTERRUPTED |= PyErr_Occurred() == PyExc_KeyboardInterrupt;
    return value;
}

/* As pymain_run_command does. */
int run_code(struct bytes code, const char *cell)
{
    PyObject *line = decode(code), *text = PyUnicode_FromFormat("%U\n", line);
    Py_DECREF(line);
    PyObject *utf8 = text == NULL ? NULL : PyUnicode_AsUTF8String(text);
    if (utf8 == NULL) {
        PySys_WriteStderr("Unable to decode the command from the command line:\n");
        PyErr_Print();
        return 1;
    }
    /* Kept: the program may throw its module away. */
    PyObject *globals = Py_NewRef(PyModule_GetDict(must(PyImport_AddModule("__main__"))));
    PyObject *value = cell != NULL ? run_cell(text, globals, cell) : run_text(text, PyBytes_AS_STRING(utf8), globals);
    int status = status_of(value);
    Py_XDECREF(value);
    Py_DECREF(text), Py_DECREF(utf8);
    /* The end of the interpreter takes it apart. */
    Py_DECREF(globals);
    return status;
}

static void set_loader(PyObject *globals, PyObject *path)
{
    PyObject *importer = must(PyImport_ImportModule("_frozen_importlib_external"));
    PyObject *type = must(PyObject_GetAttrString(importer, "SourceFileLoader"));
    must_set(globals, "__loader__", PyObject_CallFunction(type, "sO", "__main__", path));
}

/* As PyRun_SimpleFileExFlags does with source code, closing the file unless it is standard input. */
static int run_file(FILE *file, const char *name)
{
    PyCompilerFlags flags = _PyCompilerFlags_INIT;
    PyObject *globals = PyModule_GetDict(must(PyImport_AddModule("__main__")));
    PyObject *path = must(PyUnicode_DecodeFSDefault(name));
    must_set(globals, "__file__", path);
    must_set(globals, "__cached__", Py_None);
    if (file != stdin)
        set_loader(globals, path);
    int status = status_of(PyRun_FileExFlags(file, name, Py_file_input, globals, globals, file != stdin, &flags));
    if (PyDict_DelItemString(globals, "__file__") < 0 || PyDict_DelItemString(globals, "__cached__") < 0)
        PyErr_Clear();
    return status;
}

static int has(struct bytes text, const char *word)
{
    return memmem(text.data, text.length, word, strlen(word)) != NULL;
}

/*
 * Whether the parser can read the source from memory: it wants a file of its own for what is
 * not UTF-8, and what is no source at all (a zip archive, compiled code) starts elsewhere.
 */
static int is_plain(struct bytes source)
{
    struct bytes head = source;
    const char *line = memchr(head.data, '\n', head.length);
    if (line != NULL)
        line = memchr(line + 1, '\n', head.data + head.length - (line + 1));
    if (line != NULL)
        head.length = line - head.data;
    return source.length > 0 && !has(head, "coding") && memchr(source.data, 0, source.length) == NULL;
}

/* What has a NUL in it, or is called so, may be compiled code. */
static int may_be_compiled(struct bytes word, struct bytes source)
{
    int is_named = word.length >= 4 && memcmp(word.data + word.length - 4, ".pyc", 4) == 0;
    return is_named || source.length == 0 || memchr(source.data, 0, source.length) != NULL;
}

/* A directory or zip archive with __main__ in it, as pymain_run_python does. */
static int run_archive(PyObject *path)
{
    know_path0(path);
    if (PyList_SetItem(PySys_GetObject("path"), 0, Py_NewRef(path)) < 0)
        must(NULL);
    PyObject *runpy = must(PyImport_ImportModule("runpy"));
    PyObject *result = PyObject_CallMethod(runpy, "_run_module_as_main", "si", "__main__", 0);
    INTERRUPTED |= PyErr_Occurred() == PyExc_KeyboardInterrupt;
    return status_of(result);
}

/* As config_run_filename_abspath makes it; the word is relative. */
static char *absolute(struct bytes word)
{
    char *path;
    if (asprintf(&path, "%s/%.*s", work, (int)word.length, word.data) < 0)
        fail("naming the script");
    return path;
}

/* As pymain_run_python and pymain_run_file do. */
static int run_script(struct bytes word, struct bytes source)
{
    char *name = absolute(word);
    PyObject *path = must(PyUnicode_DecodeFSDefault(name));
    int plain = is_plain(source);
    if (plain) {
        /* What looking for an importer leaves behind. */
        if (PyDict_SetItem(PySys_GetObject("path_importer_cache"), path, Py_None) < 0)
            must(NULL);
    } else {
        PyObject *importer = must(PyImport_GetImporter(path));
        if (importer != Py_None)
            return run_archive(path);
    }
    FILE *file = plain ? fmemopen((void *)source.data, source.length, "r") : fopen(name, "rb");
    if (file == NULL)
        fail("opening the script");
    if (!plain && may_be_compiled(word, source)) {
        PyCompilerFlags flags = _PyCompilerFlags_INIT;
        return PyRun_SimpleFileExFlags(file, name, 1, &flags) != 0;
    }
    return run_file(file, name);
}

/* Without what Python makes of signals. */
static void give_process(const struct job *job)
{
    signal(SIGPIPE, SIG_DFL);
    signal(SIGXFSZ, SIG_DFL);
    execute(job);
}

static int is(struct bytes word, const char *text)
{
    return word.length == strlen(text) && memcmp(word.data, text, word.length) == 0;
}

int run_job(const struct job *job)
{
    if (job->flags & ENTER)
        enter_directory(job);
    if (job->on_terminal != 0)
        enter_terminal(job);
    if (job->flags & EXECUTE)
        give_process(job);
    take_words(job);
    if (job->flags & LINES || job->on_terminal & 1 << STDOUT_FILENO)
        buffer_lines();
    PyObject *orig_argv = must(PyList_New(0));
    for (uint32_t i = 0; i < job->argv.count; i++) {
        if (PyList_Append(orig_argv, decode(job->argv.items[i])) < 0)
            must(NULL);
    }
    struct bytes first = job->argv.items[1];
    int command = is(first, "-c");
    set_sys("orig_argv", orig_argv);
    PyObject *argv = must(PyList_GetSlice(orig_argv, command ? 2 : 1, job->argv.count));
    if (command && PyList_SetItem(argv, 0, must(PyUnicode_FromString("-c"))) < 0)
        must(NULL);
    set_sys("argv", argv);
    set_environment(&job->env);
    know_usual_state();
    if (job->flags & SESSION)
        return 0;
    if (command)
        return run_code(job->argv.items[2], job->flags & NOTEBOOK ? "<code>" : NULL);
    PyCompilerFlags flags = _PyCompilerFlags_INIT;
    if (is(first, "-") && Py_FdIsInteractive(stdin, "<stdin>"))
        return PyRun_AnyFileExFlags(stdin, "<stdin>", 0, &flags) != 0;
    if (is(first, "-"))
        return run_file(stdin, "<stdin>");
    if (!_Py_GetConfig()->safe_path)
        set_path0(job->path);
    return run_script(first, job->source);
}
