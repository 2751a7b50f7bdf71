// Waits a little, as a very nice process.
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <unistd.h>

int main(void)
{
	alarm(10);
	if (nice(19) < 0)
		perror("nice");
	if (poll(NULL, 0, 20) < 0)
		perror("poll");
	return 0;
}
