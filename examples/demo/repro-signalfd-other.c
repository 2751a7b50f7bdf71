// Changes the mask of a descriptor that is no signalfd.
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

int main(void)
{
	sigset_t mask;
	int fd;

	alarm(10);
	fd = eventfd(0, 0);
	if (fd < 0) {
		perror("eventfd");
		return 1;
	}
	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR1);
	if (signalfd(fd, &mask, 0) < 0)
		perror("signalfd");
	return 0;
}
