/*
 * The start of a program that was started long ago: where it runs, on which terminal, as which process.
 */
#include "waiting.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

/* Terminal::PATH in guest/src/terminal.rs. */
#define TERMINAL "/dev/pts/0"

/* The exit statuses of a shell whose command cannot be run (POSIX, Shell Command Language, 2.8.2). */
enum { NOT_EXECUTABLE = 126, NOT_FOUND = 127 };

const char *work = "/work";

/* The kernel makes the files, and knows from then on that there may be more than the script. */
void enter_directory(const struct job *job)
{
    const char *directory = copy_of(job->directory);
    if (chdir(directory) < 0) {
        int is_forbidden = errno == EACCES;
        fprintf(stderr, "sandbox: cannot enter the working directory %s: %s\n", directory, strerror(errno));
        fprintf(stderr, "sandbox: %schoose another working directory\n", is_forbidden ? "run the program as root, or " : "");
        _exit(NOT_EXECUTABLE);
    }
    if ((work = getcwd(NULL, 0)) == NULL)
        fail("finding the working directory");
}

/* Who waits leads a session without a terminal, so the first that it opens becomes the session's. */
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

struct job await_job(void (*touch)(void))
{
    prepare_words();
    drop_random_state();
    touch();
    settle();
    struct job job = receive_job();
    if (job.flags & ENTER)
        enter_directory(&job);
    if (job.on_terminal != 0)
        enter_terminal(&job);
    return job;
}

/*
 * The program gets this process, as one that was started for it. It is found through its own PATH; what the image calls
 * its interpreters is found whatever that is.
 */
void execute(const struct job *job)
{
    struct words words = take_words(job);
    char *name = words.argv[0], *path;
    environ = words.env;
    execvp(name, words.argv);
    if (errno == ENOENT && strchr(name, '/') == NULL) {
        if (asprintf(&path, "/usr/bin/%s", name) < 0)
            fail("naming the program");
        execv(path, words.argv);
    }
    int is_missing = errno == ENOENT;
    fprintf(stderr, "sandbox: cannot run %s: %s\n", name, strerror(errno));
    _exit(is_missing ? NOT_FOUND : NOT_EXECUTABLE);
}
