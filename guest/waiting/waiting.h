/*
 * A program that was started ahead, and waits for its job: what all such programs share, whatever they are. The
 * machine is saved as a template in the middle of the request for the job, and each restored clone goes on from there.
 */
#ifndef WAITING_H
#define WAITING_H

#define _GNU_SOURCE
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct bytes {
    const char *data;
    size_t length;
};

struct list {
    uint32_t count;
    struct bytes *items;
};

/* As Job::handover in guest/src/job.rs writes it. */
struct job {
    struct list argv, env;
    struct bytes directory, path, source;
    /* Which standard streams are on a terminal, a bit each; and its window: rows, and columns << 16. */
    uint32_t on_terminal, window;
    uint32_t flags;
};

enum {
    ENTER = 1,    /* the working directory is another, or there are files in it */
    REPORT = 2,   /* the exception that ends the program is told */
    NOTEBOOK = 4, /* so are what code displays, and the value of its last expression */
    EXECUTE = 8,  /* it is no program for this one, and gets the process */
    LINES = 16,   /* each line of output is given out when it is written */
    SESSION = 32, /* it is cells, which come one by one */
};

/* job.c: a cell's number, its code, and what it finds on standard input. They hold until the next one. */
struct cell {
    struct bytes number, code, input;
};
struct job receive_job(void);
struct cell receive_cell(void);
int is_another_after_point(void);
char *copy_of(struct bytes bytes);

/*
 * start.c: the working directory; what a program does first with its job; and all from the moment at which this process
 * may be saved until then, where nothing is between: `touch` is one of pages.c.
 */
extern const char *work;
void enter_directory(const struct job *job);
void enter_terminal(const struct job *job);
struct job await_job(void (*touch)(void));
void execute(const struct job *job);

/* argv.c: the words of a command, in a row, as the kernel shows them of this process from then on. */
struct words {
    char **argv, **env;
};
void prepare_words(void);
struct words take_words(const struct job *job);

/* pages.c: what is done before the machine is saved. The vvar page is the kernel's, for all processes. */
const char *vvar_page(void);
void drop_random_state(void);
void touch_pages(void);
void touch_read_only_pages(void);
void settle(void);

/* fail.c: a failure that is a mistake of ours ends the process. */
void fail(const char *what);

#endif
