// SPDX-License-Identifier: Apache-2.0
// load does what a benchmark measures, over and over: it opens sockets, starts
// programs, asks the kernel for nothing. It knows nothing of profile.
//
//	load socket|getppid|fork|vfork SLICES OPS [PROGRAM]
//		prints the nanoseconds that one takes, all on one CPU, in the least
//		disturbed tenth of the slices: the median is that of whoever else is
//		at work
//	load sockets|execs|runs SECONDS [RATE] PROGRAM
//		prints how many it made; runs makes RATE a second, execs what it can
//	load listed PROGRAM
//		starts PROGRAM, with an argument, until its input ends; prints how
//		often, and how often it lived

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char *no_environment[] = {NULL};

static long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000L + t.tv_nsec;
}

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void open_socket(int family, int type)
{
	int fd = socket(family, type | SOCK_CLOEXEC, 0);

	if (fd < 0)
		fail("socket");
	close(fd);
}

static int wait_for(pid_t pid)
{
	int status;

	if (pid < 0)
		fail("fork");
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			fail("waitpid");
	return status;
}

static int run(char *program, char *argument, int with_vfork)
{
	char *args[] = {program, argument, NULL};
	pid_t pid = with_vfork ? vfork() : fork();

	if (pid == 0) {
		execve(program, args, no_environment);
		_exit(127);
	}
	return wait_for(pid);
}

static void must_run(char *program, int with_vfork)
{
	if (run(program, NULL, with_vfork)) {
		fprintf(stderr, "%s did not end well\n", program);
		exit(1);
	}
}

static void once(const char *what, char *program)
{
	switch (what[0]) {
	case 's':
		open_socket(AF_INET, SOCK_DGRAM);
		break;
	case 'g':
		syscall(SYS_getppid);
		break;
	default:
		must_run(program, what[0] == 'v');
	}
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void stay_on_one_cpu(void)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(sysconf(_SC_NPROCESSORS_ONLN) - 1, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		fail("sched_setaffinity");
}

static void measure(const char *what, int slices, int ops, char *program)
{
	double *took = calloc(slices, sizeof(*took));
	int i, j;

	stay_on_one_cpu();
	for (j = 0; j < ops; j++)
		once(what, program);
	for (i = 0; i < slices; i++) {
		long begun = now();

		for (j = 0; j < ops; j++)
			once(what, program);
		took[i] = (double)(now() - begun) / ops;
	}
	qsort(took, slices, sizeof(*took), by_size);
	printf("%.3f\n", took[slices / 10]);
}

static void sockets(double seconds)
{
	long end = now() + seconds * 1e9, n = 0;

	while (now() < end) {
		open_socket(n & 1 ? AF_INET6 : AF_INET, n & 2 ? SOCK_STREAM : SOCK_DGRAM);
		n++;
	}
	printf("%ld\n", n);
}

static void execs(double seconds, char *program)
{
	long end = now() + seconds * 1e9, n = 0;

	for (; now() < end; n++)
		must_run(program, 1);
	printf("%ld\n", n);
}

static void runs(double seconds, double rate, char *program)
{
	long begun = now(), n, total = seconds * rate;

	for (n = 0; n < total; n++) {
		long at = begun + n * 1e9 / rate;
		struct timespec t = {at / 1000000000L, at % 1000000000L};

		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
		must_run(program, 1);
	}
	printf("%ld %.3f\n", n, (now() - begun) / 1e9);
}

static void listed(char *program)
{
	struct pollfd in = {.fd = 0, .events = POLLIN};
	long n = 0, lived = 0;

	while (poll(&in, 1, 0) == 0) {
		int status = run(program, "socket", 1);

		n++;
		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
			lived++;
	}
	printf("%ld %ld\n", n, lived);
}

int main(int argc, char **argv)
{
	if (argc >= 4 && strchr("sgfv", argv[1][0]) && strcmp(argv[1], "sockets"))
		measure(argv[1], atoi(argv[2]), atoi(argv[3]), argc > 4 ? argv[4] : NULL);
	else if (argc == 3 && !strcmp(argv[1], "sockets"))
		sockets(atof(argv[2]));
	else if (argc == 4 && !strcmp(argv[1], "execs"))
		execs(atof(argv[2]), argv[3]);
	else if (argc == 5 && !strcmp(argv[1], "runs"))
		runs(atof(argv[2]), atof(argv[3]), argv[4]);
	else if (argc == 3 && !strcmp(argv[1], "listed"))
		listed(argv[2]);
	else {
		fprintf(stderr, "see the top of load.c\n");
		return 2;
	}
	return 0;
}
