// SPDX-License-Identifier: Apache-2.0
// sidedoor comes to a socket, or to another program, by the ways that ordinary
// programs do not take. It does what its arguments say, one after the other,
// and exits 0.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/if_xdp.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void fail(const char *what)
{
	perror(what);
	exit(3);
}

struct spec {
	int family, type, protocol;
};

static struct spec parse(const char *text)
{
	static const struct {
		const char *name;
		struct spec spec;
	} known[] = {
		{"inet/stream", {AF_INET, SOCK_STREAM, 0}},
		{"inet/dgram", {AF_INET, SOCK_DGRAM, 0}},
		{"inet/raw", {AF_INET, SOCK_RAW, IPPROTO_ICMP}},
		{"inet6/dgram", {AF_INET6, SOCK_DGRAM, 0}},
		{"packet/raw", {AF_PACKET, SOCK_RAW, 0}},
		{"xdp/raw", {AF_XDP, SOCK_RAW, 0}},
		{"unix/stream", {AF_UNIX, SOCK_STREAM, 0}},
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
		if (!strcmp(text, known[i].name))
			return known[i].spec;
	fprintf(stderr, "sidedoor does not know %s\n", text);
	exit(2);
}

static void by_call(struct spec s)
{
	if (syscall(SYS_socket, s.family, s.type, s.protocol) < 0)
		fail("socket");
}

/* opens and closes such sockets without a pause, until it is killed */
static void storm(struct spec s)
{
	for (;;) {
		int fd = syscall(SYS_socket, s.family, s.type, s.protocol);

		if (fd < 0)
			fail("socket");
		close(fd);
	}
}

/* the 32-bit system call of the same name, from a 64-bit program */
static void by_int80(struct spec s)
{
#ifdef __x86_64__
	long ret;

	__asm__ volatile("int $0x80"
		: "=a"(ret)
		: "a"(359), "b"(s.family), "c"(s.type), "d"(s.protocol)
		: "memory", "r8", "r9", "r10", "r11");
	errno = -ret;
	if ((int)ret < 0)
		fail("int 0x80");
#else
	fprintf(stderr, "no int 0x80 here\n");
	exit(2);
#endif
}

static void *map_ring(int fd, size_t size, off_t at)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, at);

	if (p == MAP_FAILED)
		fail("mmap of the ring");
	return p;
}

/* flags: 0, done in the call; IOSQE_ASYNC, by a thread of the kernel's */
static void by_uring(struct spec s, unsigned char flags)
{
	struct io_uring_params p = {};
	struct io_uring_sqe *sqe;
	struct io_uring_cqe *cqe;
	unsigned *tail, *index, *head;
	char *sq, *cq;
	int fd = syscall(SYS_io_uring_setup, 4, &p);

	if (fd < 0)
		fail("io_uring_setup");
	sq = map_ring(fd, p.sq_off.array + p.sq_entries * sizeof(unsigned), IORING_OFF_SQ_RING);
	cq = map_ring(fd, p.cq_off.cqes + p.cq_entries * sizeof(*cqe), IORING_OFF_CQ_RING);
	sqe = map_ring(fd, p.sq_entries * sizeof(*sqe), IORING_OFF_SQES);
	sqe->opcode = IORING_OP_SOCKET;
	sqe->flags = flags;
	sqe->fd = s.family;
	sqe->off = s.type;
	sqe->len = s.protocol;
	index = (unsigned *)(sq + p.sq_off.array);
	tail = (unsigned *)(sq + p.sq_off.tail);
	index[*tail & *(unsigned *)(sq + p.sq_off.ring_mask)] = 0;
	__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
	if (syscall(SYS_io_uring_enter, fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) != 1)
		fail("io_uring_enter");
	head = (unsigned *)(cq + p.cq_off.head);
	cqe = (struct io_uring_cqe *)(cq + p.cq_off.cqes) +
	      (*head & *(unsigned *)(cq + p.cq_off.ring_mask));
	errno = -cqe->res;
	if (cqe->res < 0)
		fail("socket of io_uring");
	close(fd);
}

static void *exec_in_thread(void *argv)
{
	execv(*(char **)argv, argv);
	fail(*(char **)argv);
	return NULL;
}

/* the thread takes the place of the first, which ends */
static void exec_by_thread(char **argv)
{
	pthread_t t;

	if (pthread_create(&t, NULL, exec_in_thread, argv))
		fail("thread");
	for (;;)
		pause();
}

static void await(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) < 0)
		fail("waitpid");
	if (WIFSIGNALED(status)) {
		printf("child died of signal %d\n", WTERMSIG(status));
		exit(4);
	}
}

/* by fork or vfork, which shares the memory until the child execs */
static void exec_by_vfork(char **argv)
{
	pid_t pid = vfork();

	if (!pid) {
		execv(*argv, argv);
		_exit(3);
	}
	await(pid);
}

static void open_by_vfork(struct spec s)
{
	pid_t pid = vfork();

	if (!pid)
		_exit(syscall(SYS_socket, s.family, s.type, s.protocol) < 0);
	await(pid);
}

#include "stray.h"
#include "trace.h"

static volatile sig_atomic_t ended;

static void end(int signal)
{
	ended = signal;
}

/*
 * Forks children without a pause, until SIGTERM. Each connects to a port of
 * 127.0.0.1, and must be killed for it.
 */
static void breed(const char *port)
{
	struct sigaction on_term = {.sa_handler = end};
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
	int status, n = 0;

	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	sigaction(SIGTERM, &on_term, NULL);
	for (; !ended; n++) {
		pid_t pid = fork();

		if (pid < 0)
			fail("fork");
		if (!pid) {
			int fd = socket(AF_INET, SOCK_STREAM, 0);

			connect(fd, (struct sockaddr *)&to, sizeof(to));
			_exit(fd < 0 ? 6 : 5);
		}
		while (waitpid(pid, &status, 0) < 0)
			if (errno != EINTR)
				fail("waitpid");
		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) {
			printf("child %d ended with status %x\n", n, status);
			exit(5);
		}
	}
	printf("%d\n", n);
}

int main(int argc, char **argv)
{
	for (argv++; *argv; argv++) {
		char *op = *argv;

		if (!argv[1])
			return 2;
		argv++;
		if (!strcmp(op, "call"))
			by_call(parse(*argv));
		else if (!strcmp(op, "storm"))
			storm(parse(*argv));
		else if (!strcmp(op, "int80"))
			by_int80(parse(*argv));
		else if (!strcmp(op, "uring"))
			by_uring(parse(*argv), 0);
		else if (!strcmp(op, "uring-async"))
			by_uring(parse(*argv), IOSQE_ASYNC);
		else if (!strcmp(op, "vfork"))
			open_by_vfork(parse(*argv));
		else if (!strcmp(op, "breed"))
			breed(*argv);
		else if (!strcmp(op, "vfork-exec"))
			return exec_by_vfork(argv), 0;
		else if (!strcmp(op, "thread-exec"))
			exec_by_thread(argv);
		else if (!strcmp(op, "trace")) /* the rest, a program and its arguments */
			return follow(start_traced(argv)), 0;
		else if (!strcmp(op, "stray")) /* in a cgroup */
			stray(*argv, parse(argv[1])), argv++;
		else if (!strcmp(op, "puppet")) { /* the same, which is made to open a socket */
			pid_t pid = start_traced(argv + 1);

			make_open(pid, parse(*argv));
			return follow(pid), 0;
		} else if (!strcmp(op, "chroot")) { /* and executes the rest in it */
			if (chroot(*argv) || chdir("/"))
				fail(*argv);
			execv(argv[1], argv + 1);
			fail(argv[1]);
		} else {
			fprintf(stderr, "sidedoor does not know %s\n", op);
			return 2;
		}
	}
	return 0;
}
