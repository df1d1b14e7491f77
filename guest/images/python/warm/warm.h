/*
 * A warm interpreter. Loaded (LD_PRELOAD) into Debian's own python3, this library lets the
 * interpreter start as for `python3 -c ''`, and stops it where it would run the command, with no
 * Python frame on its stack. There it asks the host for its job, and the machine is saved as a
 * template in the middle of the request. Each restored clone goes on from there with a job, and
 * does what CPython's Modules/main.c does from that point on. A machine that is booted for one job
 * does the same without being saved, where what its interpreter tells is wanted.
 */
#ifndef WARM_H
#define WARM_H

#include "waiting.h"

#define PY_SSIZE_T_CLEAN
#define Py_BUILD_CORE
#include <Python.h>
#include "versions.h"

/* util.c: a Python error that is a mistake of ours. */
PyObject *must(PyObject *object);
void must_set(PyObject *globals, const char *name, PyObject *value);
PyObject *decode(struct bytes bytes);

/* terminal.c */
void buffer_lines(void);

/* program.c: each gives an exit status. What code as a cell is called is in its tracebacks; NULL: it is none. */
int run_job(const struct job *job);
int run_code(struct bytes code, const char *cell);

/* session.c */
int run_cells(void);

/* point.c: `individual` are the globals of individual.py. */
extern PyObject *individual;
void prepare_points(void);
void pass_point(void);

/* Kinds of records: guest/src/report.rs. */
enum {
    EXCEPTION = 1, /* type, message, traceback */
    RESULT = 2,    /* MIME type, data, and so on */
    DISPLAY = 3,
    LOST = 4, /* how many figures are open, and how many of them were never drawn: u32 each */
    CELL = 5, /* a session's cell has ended: its exit status (32 bits) */
};

/*
 * report.c: what is told of the program, beside its output. Once they are heard, an exception that
 * nobody catches is reported before it is printed; that a module is missing, always. tell() makes a
 * record of these byte strings; encoded() consumes a text, and takes of a long one the start and the end.
 */
void prepare_reports(void);
void hear_exceptions(int are_told);
void report_exception(PyObject *arguments);
void report_missing_module(void);
void tell(char kind, PyObject *fields);
PyObject *encoded(PyObject *text);
void drop_traceback(void);

/* source.c: a list of code objects, what they were made of, and the file name that they have. */
extern PyObject *linecache;
void prepare_source(void);
void rehearse_source(void);
void register_source(PyObject *text, PyObject *code, const char *named);
void know_source(PyObject *text, PyObject *code, const char *named);
void open_source(void);
PyObject *with_name_of_source(PyObject *text);
void close_source(void);

/* cell.c: `complete` completes a module that comes while a cell runs, one of the names in `completions`. */
extern PyObject *complete, *completions;
void show_figures(void);
void tell_lost_figures(void);
void prepare_cells(void);
void rehearse_cells(void);
void explain_error(PyObject *text, int is_cell);
PyObject *run_cell(PyObject *text, PyObject *globals, const char *name);

/* warmup.c: where it was saved, `hidden` is a list for the name of the module that a script is. */
extern PyObject *hidden;
void warm_up(void);

/* hidden.c */
PyObject *map_file(const char *path);
void run_hidden(const char *path, const char *name, PyObject *globals);

/* preload.c: `imports` are the globals of imports.py. */
void read_preload(void);
int preload(PyObject *imports);
int is_overshadowed(const struct job *job);

/* immortal.c */
void make_immortal(void);

/* memory.c */
void prefault(void);
void fill_up(void);
void keep_all_memory(void);

/* flush.c */
void prepare_rest(void);

/* exit.c: what sys and builtins are like when the program begins is what is usual. */
void prepare_the_end(PyObject *gc);
void know_what_there_is(void);
void know_at_the_end(PyObject *modules);
void know_again(PyObject *module);
void know_usual_state(void);
void flush_streams(void);
void exit_process(int status);

#endif
