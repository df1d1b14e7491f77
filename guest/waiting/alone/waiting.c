/*
 * A program that waits for any other, which then gets its process. It needs no library, so it is for images that have
 * nothing of ours in them. With an argument, it ends at once: that is what the first clone of a saved machine runs.
 */
#include "waiting.h"

int main(int count, char **words)
{
    if (count > 1)
        return 0;
    struct job job = await_job(touch_pages);
    execute(&job);
}
