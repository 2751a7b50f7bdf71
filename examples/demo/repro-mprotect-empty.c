// Protects a range of no bytes in the middle of a mapping.
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

int main(void)
{
	char *map;

	alarm(10);
	map = mmap(NULL, 4 * 4096, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (map == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	map[4096] = 1;
	if (mprotect(map + 4096, 0, PROT_READ))
		perror("mprotect");
	return 0;
}
