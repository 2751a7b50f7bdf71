// Receives one of two messages.
#include <stdio.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <unistd.h>

int main(void)
{
	struct {
		long type;
		char text[64];
	} message = { .type = 1 };
	int queue;

	alarm(10);
	queue = msgget(IPC_PRIVATE, 0600 | IPC_CREAT);
	if (queue < 0) {
		perror("msgget");
		return 1;
	}
	for (int i = 0; i < 2; i++)
		if (msgsnd(queue, &message, sizeof(message.text), 0))
			perror("msgsnd");
	if (msgrcv(queue, &message, sizeof(message.text), 0, 0) < 0)
		perror("msgrcv");
	msgctl(queue, IPC_RMID, NULL);
	return 0;
}
