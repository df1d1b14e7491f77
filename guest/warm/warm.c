/*
 * What makes an interpreter warm: loaded (LD_PRELOAD) into Debian's own python3, it lets the
 * interpreter start as for `python3 -c ''`, and stops it where it would run the command, with no
 * Python frame on its stack. There it asks the host for its job, and the machine is saved as a
 * template in the middle of the request. Each restored clone goes on from there with a job, and
 * does what CPython's Modules/main.c does from that point on.
 */
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#define Py_BUILD_CORE
#include <Python.h>
#include <internal/pycore_pylifecycle.h>
#include <internal/pycore_runtime.h>

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* Of our kernel (kernel-config/patches, "host services"). */
#define PR_HOST_JOB 0x484f5303

/* The working directory. */
static const char *work = "/work";

/* The first piece of the job. Written to before the template is saved, so that it is there. */
static char job[64 << 10];

struct bytes {
    const char *data;
    size_t length;
};

/* What imports.py shares with us: the name of the module that a script is. */
static PyObject *hidden;

/* The job's encoding: Job::handover in guest/src/job.rs. */
static const char *cursor, *end;

static void fail(const char *what)
{
    fprintf(stderr, "sandbox: the warm interpreter cannot start the program: %s: %s\n", what, strerror(errno));
    _exit(125);
}

static uint32_t take_u32(void)
{
    uint32_t value;
    if (end - cursor < (ptrdiff_t)sizeof value) {
        errno = EPROTO;
        fail("reading the job");
    }
    memcpy(&value, cursor, sizeof value);
    cursor += sizeof value;
    return value;
}

static struct bytes take_bytes(void)
{
    struct bytes bytes = {.length = take_u32()};
    if ((size_t)(end - cursor) < bytes.length) {
        errno = EPROTO;
        fail("reading the job");
    }
    bytes.data = cursor;
    cursor += bytes.length;
    return bytes;
}

static char *string(struct bytes bytes)
{
    char *copy = strndup(bytes.data, bytes.length);
    if (copy == NULL)
        fail("reading the job");
    return copy;
}

static void receive_job(void)
{
    long got = prctl(PR_HOST_JOB, job, sizeof job);
    if (got < (long)sizeof(uint32_t))
        fail("asking for the job");
    cursor = job;
    end = job + got;
    size_t length = take_u32(), have = end - cursor;
    if (have < length) {
        char *whole = malloc(length);
        if (whole == NULL)
            fail("reading the job");
        memcpy(whole, cursor, have);
        while (have < length) {
            got = prctl(PR_HOST_JOB, whole + have, length - have);
            if (got <= 0)
                fail("reading the job");
            have += got;
        }
        cursor = whole;
    }
    end = cursor + length;
}

/* A Python error here is a mistake of ours. */
static PyObject *must(PyObject *object)
{
    if (object == NULL) {
        PyErr_Print();
        fail("preparing the interpreter");
    }
    return object;
}

static PyObject *decode(struct bytes bytes)
{
    return must(PyUnicode_DecodeFSDefaultAndSize(bytes.data, bytes.length));
}

/* The environment that the template was made with is in place; what differs is set. */
static void set_environment(void)
{
    for (uint32_t count = take_u32(); count > 0; count--) {
        char *name = string(take_bytes()), *value = strchr(name, '=');
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
    if (PyList_Append(hidden, decode((struct bytes){name, stem})) < 0)
        must(NULL);
    while (script.length > 0 && script.data[script.length - 1] != '/')
        script.length--;
    if (script.length > 0)
        script.length--;
    PyObject *directory = must(PyUnicode_FromFormat("%s%s%U", work, script.length ? "/" : "", decode(script)));
    if (path == NULL || PyList_SetItem(path, 0, directory) < 0)
        must(NULL);
}

static void must_set(PyObject *globals, const char *name, PyObject *value)
{
    if (PyDict_SetItemString(globals, name, must(value)) < 0)
        must(NULL);
}

/* The exit status of a program that gave this, or raised an exception, which is shown. */
static int status_of(PyObject *result)
{
    int status = 0;
    if (result == NULL && !_Py_HandleSystemExit(&status)) {
        PyErr_Print();
        status = 1;
    }
    if (PyErr_Occurred())
        PyErr_Clear();
    return status;
}

/* As pymain_run_command does. */
static int run_command(struct bytes code)
{
    PyCompilerFlags flags = _PyCompilerFlags_INIT;
    flags.cf_flags |= PyCF_IGNORE_COOKIE;
    PyObject *text = PyUnicode_FromFormat("%U\n", decode(code));
    PyObject *utf8 = text == NULL ? NULL : PyUnicode_AsUTF8String(text);
    if (utf8 == NULL) {
        PySys_WriteStderr("Unable to decode the command from the command line:\n");
        PyErr_Print();
        return 1;
    }
    PyObject *globals = PyModule_GetDict(must(PyImport_AddModule("__main__")));
    return status_of(PyRun_StringFlags(PyBytes_AS_STRING(utf8), Py_file_input, globals, globals, &flags));
}

/* As PyRun_SimpleFileExFlags does, closing the file. */
static int run_file(FILE *file, const char *name)
{
    PyCompilerFlags flags = _PyCompilerFlags_INIT;
    PyObject *globals = PyModule_GetDict(must(PyImport_AddModule("__main__")));
    PyObject *path = must(PyUnicode_DecodeFSDefault(name));
    PyObject *importer = must(PyImport_ImportModule("_frozen_importlib_external"));
    PyObject *type = must(PyObject_GetAttrString(importer, "SourceFileLoader"));
    must_set(globals, "__file__", path);
    must_set(globals, "__cached__", Py_None);
    must_set(globals, "__loader__", PyObject_CallFunction(type, "sO", "__main__", path));
    int status = status_of(PyRun_FileExFlags(file, name, Py_file_input, globals, globals, 1, &flags));
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

/* A directory or zip archive with __main__ in it, as pymain_run_python does. */
static int run_archive(PyObject *path)
{
    if (PyList_SetItem(PySys_GetObject("path"), 0, Py_NewRef(path)) < 0)
        must(NULL);
    PyObject *runpy = must(PyImport_ImportModule("runpy"));
    PyObject *result = PyObject_CallMethod(runpy, "_run_module_as_main", "si", "__main__", 0);
    _Py_UnhandledKeyboardInterrupt |= PyErr_Occurred() == PyExc_KeyboardInterrupt;
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
    if (!plain) {
        PyCompilerFlags flags = _PyCompilerFlags_INIT;
        return PyRun_SimpleFileExFlags(file, name, 1, &flags) != 0;
    }
    return run_file(file, name);
}

/* The kernel makes the files, and knows from then on that there may be more than the script. */
static void enter(struct bytes directory)
{
    if (chdir(string(directory)) < 0 || (work = getcwd(NULL, 0)) == NULL)
        fail("entering the working directory");
}

static int run_job(void)
{
    PyObject *orig_argv = must(PyList_New(0));
    struct bytes words[3] = {0};
    uint32_t count = take_u32();
    for (uint32_t i = 0; i < count; i++) {
        struct bytes word = take_bytes();
        if (i < 3)
            words[i] = word;
        if (PyList_Append(orig_argv, decode(word)) < 0)
            must(NULL);
    }
    int command = words[1].length == 2 && memcmp(words[1].data, "-c", 2) == 0;
    int standard_input = words[1].length == 1 && words[1].data[0] == '-';
    set_sys("orig_argv", orig_argv);
    PyObject *argv = must(PyList_GetSlice(orig_argv, command ? 2 : 1, count));
    if (command && PyList_SetItem(argv, 0, must(PyUnicode_FromString("-c"))) < 0)
        must(NULL);
    set_sys("argv", argv);
    set_environment();
    take_u32(), take_u32(); /* Limits, which are set already. */
    struct bytes directory = take_bytes();
    if (take_u32())
        enter(directory);
    struct bytes path = take_bytes(), source = take_bytes();
    if (command)
        return run_command(words[2]);
    PyCompilerFlags flags = _PyCompilerFlags_INIT;
    if (standard_input)
        return PyRun_AnyFileExFlags(stdin, "<stdin>", 0, &flags) != 0;
    set_path0(path);
    return run_script(words[1], source);
}

/*
 * Memory for the program's objects that it need not ask the kernel for, since a page fault takes
 * that a millisecond on a software KVM: arenas of the interpreter's allocator, and the heap of
 * the C library's. It is all zeroes, and so takes no room in the template.
 */
#define ARENA (1 << 20)
#define ARENAS_MAX 64

static PyObjectArenaAllocator usual;
static void *arenas[ARENAS_MAX];
static size_t spare, spare_max;
static int leaving;

static void *allocate_arena(void *context, size_t size)
{
    return size == ARENA && spare > 0 ? arenas[--spare] : usual.alloc(context, size);
}

static void free_arena(void *context, void *address, size_t size)
{
    if (size == ARENA && spare < spare_max)
        arenas[spare++] = address;
    else if (size == ARENA || !leaving)
        usual.free(context, address, size);
}

static void keep_memory_at_hand(void)
{
    size_t memory = sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE), heap = memory / 64;
    spare_max = memory / 32 / ARENA < ARENAS_MAX ? memory / 32 / ARENA : ARENAS_MAX;
    PyObject_GetArenaAllocator(&usual);
    PyObjectArenaAllocator allocator = {usual.ctx, allocate_arena, free_arena};
    PyObject_SetArenaAllocator(&allocator);
    while (spare < spare_max) {
        void *arena = usual.alloc(usual.ctx, ARENA);
        if (arena == NULL)
            fail("keeping memory at hand");
        arenas[spare++] = arena;
    }
    /* Freeing a large piece raises the size from which the C library maps each of them (mallopt(3)). */
    void *volatile piece = malloc(2 * heap);
    free(piece);
    piece = malloc(heap);
    free(piece);
}

/*
 * The modules that there were before the program, which are not taken apart at the end, and the
 * versions of their dictionaries: one that the program changed goes the usual way.
 */
#define MODULES_MAX 128
static PyObject *startup;
static uint64_t versions[MODULES_MAX];
/* Standard output and standard error, as the interpreter made them. */
static PyObject *streams[2];
static int exit_status;

/* As Py_RunMain does after the program and the end of the interpreter. */
static void end_process(void)
{
    if (_Py_UnhandledKeyboardInterrupt) {
        signal(SIGINT, SIG_DFL);
        kill(getpid(), SIGINT);
    }
    exit(exit_status);
}

/* The last of the interpreter's objects that a program could know is gone: the rest goes with the machine. */
static void end_early(PyObject *capsule)
{
    for (int i = 0; i < 2; i++) {
        /* Its own end would have done that. */
        if (PyObject_CallMethod(streams[i], "flush", NULL) == NULL)
            PyErr_Clear();
    }
    while (_PyRuntime.nexitfuncs > 0)
        _PyRuntime.exitfuncs[--_PyRuntime.nexitfuncs]();
    fflush(stdout);
    fflush(stderr);
    end_process();
}

static uint64_t version(PyObject *module)
{
    return PyModule_Check(module) ? ((PyDictObject *)PyModule_GetDict(module))->ma_version_tag : 0;
}

static int flush(const char *stream)
{
    PyObject *file = PySys_GetObject(stream);
    PyObject *result = file == NULL || file == Py_None ? Py_None : PyObject_CallMethod(file, "flush", NULL);
    return result == NULL ? -1 : 0;
}

/*
 * The first function that was registered with atexit, so the last that is called. What there was
 * before the program is hidden from the end of the interpreter, which would take it apart object
 * by object; that ends when it comes to the capsule, the last of what the sys module holds.
 */
static PyObject *shorten_the_end(PyObject *self, PyObject *arguments)
{
    PyObject *modules = PyImport_GetModuleDict(), *name, *module;
    Py_ssize_t position = 0;
    if (!leaving || flush("stdout") < 0 || flush("stderr") < 0) {
        /* Py_FinalizeEx finds the same and has its own way with it. */
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    for (int i = 0; PyDict_Next(startup, &position, &name, &module); i++) {
        int unchanged = i < MODULES_MAX && version(module) == versions[i];
        if (unchanged && PyDict_GetItem(modules, name) == module && PyDict_DelItem(modules, name) < 0)
            PyErr_Clear();
    }
    static char something;
    PyObject *capsule = PyCapsule_New(&something, NULL, end_early);
    if (capsule == NULL || PySys_SetObject("last", capsule) < 0)
        PyErr_Clear();
    Py_XDECREF(capsule);
    Py_RETURN_NONE;
}

static void prepare_the_end(void)
{
    static PyMethodDef definition = {"shorten_the_end", shorten_the_end, METH_NOARGS, NULL};
    PyObject *atexit = must(PyImport_ImportModule("atexit"));
    must(PyObject_CallMethod(atexit, "register", "N", must(PyCFunction_New(&definition, NULL))));
    if (PyDict_DelItemString(PyImport_GetModuleDict(), "atexit") < 0)
        must(NULL);
    streams[0] = Py_NewRef(must(PySys_GetObject("__stdout__")));
    streams[1] = Py_NewRef(must(PySys_GetObject("__stderr__")));
    startup = must(PyDict_Copy(PyImport_GetModuleDict()));
    for (char **name = (char *[]){"__main__", "sys", "builtins", NULL}; *name != NULL; name++) {
        if (PyDict_DelItemString(startup, *name) < 0)
            must(NULL);
    }
    PyObject *name, *module;
    Py_ssize_t position = 0;
    for (int i = 0; i < MODULES_MAX && PyDict_Next(startup, &position, &name, &module); i++)
        versions[i] = version(module);
}

static void leave(int status)
{
    /* The machine goes with the process: giving memory back is for nothing. */
    leaving = 1;
    spare_max = ARENAS_MAX;
    exit_status = status;
    if (Py_FinalizeEx() < 0)
        exit_status = 120;
    end_process();
}

/* A file in memory, as long as the process lives. */
static PyObject *map(const char *path)
{
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) < 0)
        fail(path);
    void *memory = mmap(NULL, status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (memory == MAP_FAILED)
        fail(path);
    close(fd);
    return must(PyMemoryView_FromMemory(memory, status.st_size, PyBUF_READ));
}

/* A mapping of ours, from /proc/self/maps. */
struct mapping {
    unsigned long from, to;
    char modes[5];
    int is_vvar;
};

static int next_mapping(FILE *maps, struct mapping *mapping)
{
    static char *line;
    static size_t size;
    if (maps == NULL || getline(&line, &size, maps) < 0)
        return 0;
    mapping->is_vvar = strstr(line, "[vvar]") != NULL;
    return sscanf(line, "%lx-%lx %4s", &mapping->from, &mapping->to, mapping->modes) == 3;
}

/* The kernel's page for all processes; its last byte is ours (host_services.c there). */
static PyObject *unchanged(void)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    struct mapping mapping;
    while (next_mapping(maps, &mapping)) {
        if (mapping.is_vvar) {
            fclose(maps);
            return must(PyMemoryView_FromMemory((char *)mapping.from + 4095, 1, PyBUF_READ));
        }
    }
    fail("finding [vvar]");
    return NULL;
}

/*
 * imports.py, under the name of the import system, whose frames no traceback shows. Libraries of
 * extension modules are loaded; that the modules are imported is left to the program.
 */
static void speed_imports(void)
{
    PyObject *source = map("/usr/lib/sandbox/imports.py");
    Py_buffer *text = PyMemoryView_GET_BUFFER(source);
    char *copy = string((struct bytes){text->buf, text->len});
    PyObject *code = must(Py_CompileString(copy, "<frozen importlib._bootstrap_external>", Py_file_input));
    PyObject *globals = must(PyDict_New());
    hidden = must(PyList_New(0));
    must_set(globals, "__builtins__", PyEval_GetBuiltins());
    must_set(globals, "archive", map("/usr/lib/sandbox/modules"));
    must_set(globals, "unchanged", unchanged());
    must_set(globals, "job", hidden);
    must_set(globals, "work", PyUnicode_FromString(work));
    must(PyEval_EvalCode(code, globals, globals));
    PyObject *extensions = must(PyDict_GetItemString(globals, "extensions"));
    for (Py_ssize_t i = 0; i < PyList_Size(extensions); i++) {
        if (dlopen(PyUnicode_AsUTF8(PyList_GetItem(extensions, i)), RTLD_NOW) == NULL)
            fail(dlerror());
    }
    free(copy);
}

/* What the first program would make on the way is made now. */
static void rehearse(void)
{
    static char script[] = "import sys\nprint(end='', flush=True)\nprint(end='', file=sys.stderr)\ndel sys\n";
    PyCompilerFlags flags = _PyCompilerFlags_INIT;
    PyObject *globals = PyModule_GetDict(must(PyImport_AddModule("__main__")));
    PyObject *loader = Py_NewRef(must(PyDict_GetItemString(globals, "__loader__")));
    PyRun_SimpleFileExFlags(fmemopen(script, sizeof script - 1, "r"), "rehearsal", 1, &flags);
    must_set(globals, "__loader__", loader);
    Py_DECREF(loader);
}

/* What there is now is no garbage: the collector need not look at it again, not even at the end. */
static void freeze(void)
{
    PyObject *gc = must(PyImport_ImportModule("gc"));
    must(PyObject_CallMethod(gc, "collect", NULL));
    must(PyObject_CallMethod(gc, "freeze", NULL));
    if (PyDict_DelItemString(PyImport_GetModuleDict(), "gc") < 0)
        must(NULL);
    /* All but what the program fills: tracked anew, they are as young as it. */
    PyObject *module = must(PyImport_AddModule("__main__")), *globals = PyModule_GetDict(module);
    PyObject_GC_UnTrack(module), PyObject_GC_Track(module);
    PyObject_GC_UnTrack(globals), PyObject_GC_Track(globals);
}

/*
 * All pages of the interpreter that there are, as it will need them: a fault taken now is one
 * that no clone takes. What is private and writable gets pages of its own.
 */
static void touch_pages(void)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    struct mapping mapping;
    while (next_mapping(maps, &mapping)) {
        int advice = mapping.modes[1] == 'w' ? MADV_POPULATE_WRITE : MADV_POPULATE_READ;
        if (mapping.modes[0] == 'r')
            madvise((void *)mapping.from, mapping.to - mapping.from, advice);
    }
    if (maps != NULL)
        fclose(maps);
}

/* Until the rest of the machine has come to rest, and then until the moment after a timer tick. */
static void settle(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL);
    struct timespec before, now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &before);
    for (int ticks = 0; ticks < 3;) {
        clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
        if (now.tv_nsec != before.tv_nsec)
            ticks++, before = now;
    }
}

static int on_audit(const char *event, PyObject *arguments, void *data)
{
    if (strcmp(event, "cpython.run_command") != 0)
        return 0;
    _PyRuntime.audit_hook_head = NULL;
    keep_memory_at_hand();
    speed_imports();
    rehearse();
    prepare_the_end();
    freeze();
    touch_pages();
    settle();
    receive_job();
    leave(run_job());
    return 0;
}

__attribute__((constructor)) static void load(void)
{
    unsetenv("LD_PRELOAD");
    PySys_AddAuditHook(on_audit, NULL);
}
