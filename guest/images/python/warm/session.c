/*
 * A session: cell after cell in one interpreter, which keeps what they leave.
 */
#include "warm.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

/* CELL_SIGNAL in guest/src/lib.rs: there is a cell, to be asked for. */
#define CELL_SIGNAL 63

/* Whether standard input is what came with the cell before. */
static int has_input;

/* As the interpreter makes it when it starts. */
static void renew_stdin(void)
{
    PyObject *stream = must(PyFile_FromFd(STDIN_FILENO, "<stdin>", "r", -1, "utf-8", "strict", NULL, 0));
    if (PyObject_SetAttrString(stream, "mode", must(PyUnicode_FromString("r"))) < 0)
        PyErr_Clear();
    PySys_SetObject("stdin", stream);
    Py_DECREF(stream);
}

/* A program may have closed it, as exit() does. */
static int is_usable(void)
{
    PyObject *stream = PySys_GetObject("stdin");
    PyObject *closed = stream == NULL || stream == Py_None ? NULL : PyObject_GetAttrString(stream, "closed");
    int usable = closed != NULL && PyObject_IsTrue(closed) == 0;
    PyErr_Clear();
    Py_XDECREF(closed);
    return usable && fcntl(STDIN_FILENO, F_GETFD) >= 0;
}

static int file_of(struct bytes input)
{
    int file = memfd_create("stdin", MFD_CLOEXEC);
    for (size_t done = 0; file >= 0 && done < input.length;) {
        ssize_t count = write(file, input.data + done, input.length - done);
        if (count <= 0)
            fail("keeping standard input");
        done += count;
    }
    if (file < 0 || lseek(file, 0, SEEK_SET) < 0)
        fail("keeping standard input");
    return file;
}

/* Input is for one cell: what it leaves is not for the next one. */
static void give_input(struct bytes input)
{
    if (input.length == 0 && !has_input && is_usable())
        return;
    int file = input.length > 0 ? file_of(input) : open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (file != STDIN_FILENO && (dup2(file, STDIN_FILENO) < 0 || close(file) < 0))
        fail("giving standard input");
    has_input = input.length > 0;
    renew_stdin();
}

/* Forgets an interrupt that was for the cell before, and came late. */
static void forget_interrupt(void)
{
    sigset_t interrupt;
    sigemptyset(&interrupt);
    sigaddset(&interrupt, SIGINT);
    sigtimedwait(&interrupt, NULL, &(struct timespec){0});
    if (PyErr_CheckSignals() == 0)
        return;
    if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt))
        PyErr_Clear();
    else
        PyErr_WriteUnraisable(NULL);
}

/* What the program's threads do goes on meanwhile, and so does what it makes of signals. */
static void await_cell(const sigset_t *cells)
{
    int number;
    do {
        Py_BEGIN_ALLOW_THREADS
        number = sigwaitinfo(cells, NULL);
        Py_END_ALLOW_THREADS
        forget_interrupt();
    } while (number < 0);
}

static void tell_end(uint32_t status)
{
    PyObject *fields = Py_BuildValue("[y#]", (char *)&status, (Py_ssize_t)sizeof status);
    flush_streams();
    fflush(NULL);
    if (fields != NULL)
        tell(CELL, fields);
    PyErr_Clear();
    Py_XDECREF(fields);
}

/* Cells are counted from 1: Cell::POINT in guest/src/job.rs. */
static int is_point(struct bytes number)
{
    return number.length == 1 && number.data[0] == '0';
}

/* Returns in a child process that a cell made, and let go on from there. */
int run_cells(void)
{
    sigset_t cells;
    sigemptyset(&cells);
    sigaddset(&cells, CELL_SIGNAL);
    pthread_sigmask(SIG_BLOCK, &cells, NULL);
    pid_t own = getpid();
    int status = 0;
    while (getpid() == own) {
        char name[32];
        tell_end(status);
        await_cell(&cells);
        struct cell cell = receive_cell();
        if (is_point(cell.number)) {
            pass_point();
            continue;
        }
        snprintf(name, sizeof name, "<cell %.*s>", (int)cell.number.length, cell.number.data);
        give_input(cell.input);
        status = run_code(cell.code, name);
        show_figures();
        INTERRUPTED = 0;
    }
    return status;
}
