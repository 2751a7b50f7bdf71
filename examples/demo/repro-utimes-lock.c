// Sets the times of an open file.
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int main(void)
{
	int fd;

	alarm(10);
	fd = memfd_create("times", 0);
	if (fd < 0) {
		perror("memfd_create");
		return 1;
	}
	if (futimens(fd, NULL))
		perror("futimens");
	return 0;
}
