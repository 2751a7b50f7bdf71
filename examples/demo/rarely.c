// Put before a reproducer where the bug is to show in three runs of ten only (make demo WORLD=rare).
#include <stdint.h>
#include <time.h>
#include <unistd.h>

__attribute__((constructor)) static void rarely(void)
{
	struct timespec now;
	uint64_t dice;

	clock_gettime(CLOCK_MONOTONIC, &now);
	dice = (uint64_t)now.tv_nsec * 0x9e3779b97f4a7c15 + (uint64_t)now.tv_sec;
	dice = (dice ^ dice >> 29) * 0xbf58476d1ce4e5b9;
	if ((dice >> 33) % 10 >= 3)
		_exit(0);
}

