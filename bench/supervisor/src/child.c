/* The child that everybody runs: says that it lives, then does nothing. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(void) {
    const char *path = getenv("BENCH_FIFO");
    char line[16];
    int length = snprintf(line, sizeof line, "%d\n", (int)getpid());
    int fifo = path ? open(path, O_WRONLY) : -1;
    if (fifo < 0 || write(fifo, line, length) != length)
        return 1;
    close(fifo);
    /* A supervisor that listens for readiness is told. */
    if (getenv("BENCH_READY") && write(3, "\n", 1) != 1)
        return 1;
    for (;;)
        pause();
}
