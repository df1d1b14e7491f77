/*
 * The end of a program that waits, by a mistake of ours.
 */
#include "waiting.h"

#include <errno.h>
#include <unistd.h>

void fail(const char *what)
{
    fprintf(stderr, "sandbox: the program that waits cannot start: %s: %s\n", what, strerror(errno));
    _exit(125);
}
