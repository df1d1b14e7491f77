/*
 * Where the interpreter would run its command: it is made ready, and gets a job instead.
 */
#include "warm.h"

#include <unistd.h>

/* An interpreter with a command runs for one job, in a machine of its own; others are to be saved. */
static int is_to_be_saved(PyObject *arguments)
{
    const char *command = NULL;
    return PyArg_ParseTuple(arguments, "s", &command) && strcmp(command, "\n") == 0;
}

static int on_audit(const char *event, PyObject *arguments, void *data)
{
    static int started;
    if (started) {
        if (strcmp(event, "sys.excepthook") == 0)
            report_exception(arguments);
        return 0;
    }
    if (strcmp(event, "cpython.run_command") != 0)
        return 0;
    started = 1;
    prepare_words();
    prepare_reports();
    prepare_source();
    prepare_cells();
    prepare_points();
    prepare_rest();
    if (is_to_be_saved(arguments)) {
        rehearse_cells();
        warm_up();
    }
    struct job job = receive_job();
    if (job.flags & REPORT)
        hear_exceptions(1);
    if (is_overshadowed(&job))
        job.flags |= EXECUTE;
    int status = run_job(&job);
    if (job.flags & SESSION)
        status = run_cells();
    else if (job.flags & REPORT)
        show_figures();
    else
        tell_lost_figures();
    exit_process(status);
    return 0;
}

__attribute__((constructor)) static void load(void)
{
    read_preload();
    unsetenv("LD_PRELOAD");
    PySys_AddAuditHook(on_audit, NULL);
}
