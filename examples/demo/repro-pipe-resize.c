// Wraps a pipe's ring around its end, enlarges the pipe and reads it empty.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

static char page[4096];

int main(void)
{
	int fd[2];

	alarm(10);
	if (pipe2(fd, O_NONBLOCK)) {
		perror("pipe2");
		return 1;
	}
	while (write(fd[1], page, sizeof(page)) > 0)
		;
	for (int i = 0; i < 8; i++)
		if (read(fd[0], page, sizeof(page)) < 0)
			perror("read");
	for (int i = 0; i < 4; i++)
		if (write(fd[1], page, sizeof(page)) < 0)
			perror("write");
	if (fcntl(fd[1], F_SETPIPE_SZ, 32 * sizeof(page)) < 0)
		perror("F_SETPIPE_SZ");
	while (read(fd[0], page, sizeof(page)) > 0)
		;
	return 0;
}
