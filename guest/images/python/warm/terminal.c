/*
 * A terminal, for a program whose standard streams were pipes when its interpreter was saved.
 */
#include "warm.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

/* Terminal::PATH in guest/src/terminal.rs. */
#define TERMINAL "/dev/pts/0"

/* The interpreter leads a session without a terminal, so the first that it opens becomes the session's. */
void enter_terminal(const struct job *job)
{
    int terminal = open(TERMINAL, O_RDWR | O_CLOEXEC);
    struct winsize size = {.ws_row = job->window & 0xffff, .ws_col = job->window >> 16};
    struct termios modes;
    if (terminal < 0 || ioctl(terminal, TIOCSWINSZ, &size) < 0 || tcgetattr(terminal, &modes) < 0)
        fail("opening the terminal");
    if (!(job->on_terminal & 1 << STDIN_FILENO)) {
        /* The host's terminal still adds the carriage returns itself. */
        modes.c_oflag &= ~OPOST;
        tcsetattr(terminal, TCSANOW, &modes);
    }
    for (int stream = 0; stream < 3; stream++) {
        if (job->on_terminal & 1 << stream && dup2(terminal, stream) < 0)
            fail("entering the terminal");
    }
    close(terminal);
}

/* As the interpreter makes its output when it starts on a terminal (pylifecycle.c: create_stdio). */
void buffer_lines(void)
{
    PyObject *output = must(PySys_GetObject("stdout"));
    PyObject *method = must(PyObject_GetAttrString(output, "reconfigure"));
    PyObject *none = must(PyTuple_New(0)), *options = must(Py_BuildValue("{s:O}", "line_buffering", Py_True));
    must(PyObject_Call(method, none, options));
    Py_DECREF(options), Py_DECREF(none), Py_DECREF(method);
}
