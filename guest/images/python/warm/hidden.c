/*
 * Code and data in files of ours, which no program finds.
 */
#include "warm.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* A file in memory, as long as the process lives. */
PyObject *map_file(const char *path)
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

/*
 * Code in a file of ours; in tracebacks, the file has this name. Its builtins are its own, whatever the
 * program does to those that there are for all.
 */
void run_hidden(const char *path, const char *name, PyObject *globals)
{
    Py_buffer *text = PyMemoryView_GET_BUFFER(map_file(path));
    char *source = copy_of((struct bytes){text->buf, text->len});
    must_set(globals, "__builtins__", PyDict_Copy(PyEval_GetBuiltins()));
    must(PyEval_EvalCode(must(Py_CompileString(source, name, Py_file_input)), globals, globals));
    free(source);
}
