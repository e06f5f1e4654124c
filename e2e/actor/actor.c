// SPDX-License-Identifier: Apache-2.0
// actor is a program of known behaviour: it does what its arguments say, one
// after the other, and exits 0. With a path it is the interpreter of a script
// of such words. It is linked statically, so that its file is
// all there is to it.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void fail(const char *what)
{
	perror(what);
	exit(3);
}

#include "net.h"

static void *open_in_thread(void *spec)
{
	open_socket(spec);
	return NULL;
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

/* as fork, but the parent exits 0 only if the child is killed */
static void fork_victim(void)
{
	pid_t pid = fork();
	int status;

	if (pid < 0)
		fail("fork");
	if (!pid)
		return;
	if (waitpid(pid, &status, 0) < 0)
		fail("waitpid");
	exit(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL ? 0 : 4);
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

/* moves the process into a cgroup */
static void enter(const char *group)
{
	char path[4096];
	FILE *f;

	snprintf(path, sizeof(path), "%s/cgroup.procs", group);
	f = fopen(path, "w");
	if (!f || fputs("0", f) < 0 || fclose(f))
		fail(path);
}

/* as fork, but the child is in a cgroup from its beginning, and not moved there */
static pid_t fork_into(const char *group)
{
	int fd = open(group, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct clone_args args = {.flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = fd};
	pid_t pid;

	if (fd < 0)
		fail(group);
	pid = syscall(SYS_clone3, &args, sizeof(args));
	if (pid < 0)
		fail("clone3");
	return pid;
}

/* executes a file that has been deleted, with the rest for its arguments */
static void exec_deleted(char **argv)
{
	int fd = open(argv[0], O_RDONLY | O_CLOEXEC);

	if (fd < 0 || unlink(argv[0]))
		fail(argv[0]);
	fexecve(fd, argv, environ);
	fail(argv[0]);
}

/* executes a copy in memory, with the rest for its arguments */
static void exec_memory(char **argv)
{
	int from = open(argv[0], O_RDONLY | O_CLOEXEC), to = memfd_create("memory", MFD_CLOEXEC);
	struct stat st;

	if (from < 0 || to < 0 || fstat(from, &st))
		fail(argv[0]);
	if (sendfile(to, from, NULL, st.st_size) != st.st_size)
		fail("sendfile");
	fexecve(to, argv, environ);
	fail(argv[0]);
}

static int perform(char **argv);

static void *perform_in_thread(void *argv)
{
	exit(perform(argv));
}

/* the rest is done by a thread, for which the first waits or which it leaves alone */
static void hand_to_thread(char **argv, int wait)
{
	pthread_t t;

	if (pthread_create(&t, NULL, perform_in_thread, argv))
		fail("thread");
	if (wait)
		pthread_join(t, NULL);
	pthread_exit(NULL);
}

/* as an interpreter: does what a script says, after its first line */
static int interpret(const char *path)
{
	static char text[4096], *argv[64];
	FILE *f = fopen(path, "r");
	char *word, *from = text;
	int n = 0;

	if (!f)
		fail(path);
	text[fread(text, 1, sizeof(text) - 1, f)] = 0;
	fclose(f);
	strsep(&from, "\n");
	for (word = strtok(from, " \n"); word && n < 63; word = strtok(NULL, " \n"))
		argv[n++] = word;
	return perform(argv);
}

/* argv ends with NULL */
static int perform(char **argv)
{
	for (; *argv; argv++) {
		char *op = *argv, *arg = argv[1] ? argv[1] : "";

		int words = perform_net(op, arg, argv[1] && argv[2] ? argv[2] : "");

		if (words) {
			argv += words - 1;
		} else if (!strcmp(op, "give")) {
			return give(argv + 1);
		} else if (!strcmp(op, "activate")) {
			activate(argv + 1);
		} else if (!strcmp(op, "thread")) {
			in_thread(arg), argv++;
		} else if (!strcmp(op, "touch")) {
			touch(arg), argv++;
		} else if (!strcmp(op, "await")) {
			await_file(arg), argv++;
		} else if (!strcmp(op, "sleep")) {
			usleep(atof(arg) * 1e6), argv++;
		} else if (!strcmp(op, "enter")) {
			enter(arg), argv++;
		} else if (!strcmp(op,
				   "fork")) { /* the child does the rest, the parent waits for it */
			pid_t pid = fork();

			if (pid < 0)
				fail("fork");
			if (pid) {
				await(pid);
				return 0;
			}
		} else if (!strcmp(op, "newpid")) { /* for the children, by fork */
			if (unshare(CLONE_NEWPID))
				fail("unshare");
		} else if (!strcmp(op, "clone")) { /* the same, with the child in a cgroup */
			pid_t pid = fork_into(arg);

			argv++;
			if (pid) {
				await(pid);
				return 0;
			}
		} else if (!strcmp(op,
				   "daemon")) { /* the second child does the rest, nobody waits */
			if (fork())
				return 0;
			setsid();
			if (fork())
				_exit(0);
			fclose(stdin), fclose(stdout), fclose(stderr);
		} else if (!strcmp(op, "victim")) {
			fork_victim();
		} else if (!strcmp(op, "hand") || !strcmp(op, "leave")) {
			hand_to_thread(argv + 1, *op == 'h');
		} else if (!strcmp(op, "exec")) { /* with the rest for its arguments */
			execv(arg, argv + 1);
			fail(arg);
		} else if (!strcmp(op, "execdeleted")) {
			exec_deleted(argv + 1);
		} else if (!strcmp(op, "execmemory")) {
			exec_memory(argv + 1);
		} else {
			fprintf(stderr, "actor does not know %s\n", op);
			return 2;
		}
	}
	return 0;
}

int main(int argc, char **argv)
{
	if (argc > 1 && strchr(argv[1], '/'))
		return interpret(argv[1]);
	return perform(argv + 1);
}
