// SPDX-License-Identifier: Apache-2.0
// What the sidedoor does as a tracer of another program.
#include <sys/ptrace.h>
#include <sys/user.h>

/* starts a program that is stopped where it begins, and then waits for it */
static pid_t start_traced(char **argv)
{
	pid_t pid = fork();
	int status;

	if (pid < 0)
		fail("fork");
	if (!pid) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		execv(*argv, argv);
		fail(*argv);
	}
	if (waitpid(pid, &status, 0) < 0 || !WIFSTOPPED(status))
		fail("trace");
	return pid;
}

/* follows a traced program from system call to system call, to its end */
static void follow(pid_t pid)
{
	int status, signal = 0;

	ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_TRACESYSGOOD);
	for (;; signal = WSTOPSIG(status) == (SIGTRAP | 0x80) ? 0 : WSTOPSIG(status)) {
		if (ptrace(PTRACE_SYSCALL, pid, NULL, signal) && errno != ESRCH)
			fail("PTRACE_SYSCALL");
		if (waitpid(pid, &status, 0) < 0)
			fail("waitpid");
		if (!WIFSTOPPED(status))
			break;
	}
	if (WIFSIGNALED(status)) {
		printf("child died of signal %d\n", WTERMSIG(status));
		exit(4);
	}
	if (status)
		exit(5);
}

/* has a traced program, before its first instruction, open a socket */
static void make_open(pid_t pid, struct spec s)
{
#ifdef __x86_64__
	struct user_regs_struct before, regs;
	long text;
	int status;

	if (ptrace(PTRACE_GETREGS, pid, NULL, &before))
		fail("PTRACE_GETREGS");
	regs = before;
	regs.rax = SYS_socket;
	regs.rdi = s.family;
	regs.rsi = s.type;
	regs.rdx = s.protocol;
	text = ptrace(PTRACE_PEEKTEXT, pid, before.rip, NULL);
	/* syscall, int3 */
	if (ptrace(PTRACE_POKETEXT, pid, before.rip, (text & ~0xffffffL) | 0xcc050f) ||
		ptrace(PTRACE_SETREGS, pid, NULL, &regs) || ptrace(PTRACE_CONT, pid, NULL, NULL) ||
		waitpid(pid, &status, 0) < 0)
		fail("make it open a socket");
	if (WIFSIGNALED(status)) {
		printf("child died of signal %d\n", WTERMSIG(status));
		exit(4);
	}
	if (ptrace(PTRACE_GETREGS, pid, NULL, &regs) || (long)regs.rax < 0)
		fail("socket of the traced");
	if (ptrace(PTRACE_POKETEXT, pid, before.rip, text) ||
		ptrace(PTRACE_SETREGS, pid, NULL, &before))
		fail("let it go on");
#else
	fprintf(stderr, "no such tracer here\n");
	exit(2);
#endif
}
