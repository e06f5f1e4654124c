// SPDX-License-Identifier: Apache-2.0
// actor is a program of known behaviour: it does what its arguments say, one
// after the other, and exits 0. It is linked statically, so that its file is
// all there is to it.
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void fail(const char *what)
{
	perror(what);
	exit(3);
}

static int family_of(const char *name)
{
	if (!strcmp(name, "inet6"))
		return AF_INET6;
	if (!strcmp(name, "unix"))
		return AF_UNIX;
	if (!strcmp(name, "netlink"))
		return AF_NETLINK;
	if (!strcmp(name, "packet"))
		return AF_PACKET;
	if (!strcmp(name, "vsock"))
		return AF_VSOCK;
	return AF_INET;
}

static int type_of(const char *name)
{
	if (!strcmp(name, "dgram"))
		return SOCK_DGRAM;
	if (!strcmp(name, "raw"))
		return SOCK_RAW;
	return SOCK_STREAM;
}

/* family/type, such as inet/dgram; the socket stays open */
static void open_socket(const char *spec)
{
	char family[32];
	const char *type = strchr(spec, '/');

	if (!type || type - spec >= (long)sizeof(family))
		exit(2);
	memcpy(family, spec, type - spec);
	family[type - spec] = 0;
	if (socket(family_of(family), type_of(type + 1), 0) < 0)
		fail("socket");
}

static void *open_in_thread(void *spec)
{
	open_socket(spec);
	return NULL;
}

/* sends one byte to a port of 127.0.0.1 */
static void send_to(const char *port, int type)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(atoi(port)) };
	int fd = socket(AF_INET, type, 0);

	if (fd < 0)
		fail("socket");
	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0)
		fail("connect");
	if (write(fd, "x", 1) != 1)
		fail("write");
	close(fd);
}

static void await(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) < 0)
		fail("waitpid");
	if (WIFSIGNALED(status)) {
		printf("child died of signal %d\n", WTERMSIG(status));
		fflush(stdout);
	}
}

static void touch(const char *path)
{
	FILE *f = fopen(path, "w");

	if (!f || fclose(f))
		fail(path);
}

/* waits until a file exists, a minute at most */
static void await_file(const char *path)
{
	for (int i = 0; i < 6000; i++) {
		if (!access(path, F_OK))
			return;
		usleep(10000);
	}
	errno = ETIMEDOUT;
	fail(path);
}

static void in_thread(const char *spec)
{
	pthread_t t;

	if (pthread_create(&t, NULL, open_in_thread, (void *)spec) || pthread_join(t, NULL))
		fail("thread");
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		char *op = argv[i], *arg = i + 1 < argc ? argv[i + 1] : "";

		if (!strcmp(op, "socket")) {
			open_socket(arg), i++;
		} else if (!strcmp(op, "thread")) {
			in_thread(arg), i++;
		} else if (!strcmp(op, "tcp")) {
			send_to(arg, SOCK_STREAM), i++;
		} else if (!strcmp(op, "udp")) {
			send_to(arg, SOCK_DGRAM), i++;
		} else if (!strcmp(op, "touch")) {
			touch(arg), i++;
		} else if (!strcmp(op, "await")) {
			await_file(arg), i++;
		} else if (!strcmp(op, "sleep")) {
			usleep(atof(arg) * 1e6), i++;
		} else if (!strcmp(op, "fork")) { /* the child does the rest, the parent waits for it */
			pid_t pid = fork();

			if (pid < 0)
				fail("fork");
			if (pid) {
				await(pid);
				return 0;
			}
		} else if (!strcmp(op, "daemon")) { /* the second child does the rest, nobody waits */
			if (fork())
				return 0;
			setsid();
			if (fork())
				_exit(0);
			fclose(stdin), fclose(stdout), fclose(stderr);
		} else if (!strcmp(op, "exec")) { /* with the rest for its arguments */
			execv(arg, argv + i + 1);
			fail(arg);
		} else {
			fprintf(stderr, "actor does not know %s\n", op);
			return 2;
		}
	}
	return 0;
}
