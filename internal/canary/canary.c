// SPDX-License-Identifier: Apache-2.0

//go:build ignore

// The canary does what a window has to prove was seen: it forks, waits for the
// child, opens a network socket, and binds and connects it to loopback, by which
// nothing is sent. It has no libc, reads neither arguments nor environment, and
// ends with one of the exit codes below.

#define EXIT_OPENED 0
#define EXIT_REFUSED 3
#define EXIT_OTHER 4

#define SIGCHLD 17
#define AF_INET 2
#define SOCK_DGRAM 2
#define EPERM 1

#if defined(__x86_64__)

#define NR_CLOSE 3
#define NR_SOCKET 41
#define NR_CONNECT 42
#define NR_BIND 49
#define NR_CLONE 56
#define NR_WAIT4 61
#define NR_EXIT_GROUP 231

__asm__(".globl _start\n"
	"_start:\n"
	"	xor %ebp, %ebp\n"
	"	and $-16, %rsp\n"
	"	call canary\n"
	"	hlt\n");

static long syscall5(long nr, long a, long b, long c, long d, long e)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	long ret;

	__asm__ volatile("syscall"
		: "=a"(ret)
		: "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
		: "rcx", "r11", "memory");
	return ret;
}

#elif defined(__aarch64__)

#define NR_CLOSE 57
#define NR_SOCKET 198
#define NR_BIND 200
#define NR_CONNECT 203
#define NR_CLONE 220
#define NR_WAIT4 260
#define NR_EXIT_GROUP 94

__asm__(".globl _start\n"
	"_start:\n"
	"	mov x29, xzr\n"
	"	mov x30, xzr\n"
	"	bl canary\n"
	"	brk #0\n");

static long syscall5(long nr, long a, long b, long c, long d, long e)
{
	register long x8 __asm__("x8") = nr;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;

	__asm__ volatile("svc #0"
		: "+r"(x0)
		: "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4)
		: "memory");
	return x0;
}

#else
#error "no system calls for this architecture"
#endif

static _Noreturn void leave(int code)
{
	for (;;)
		syscall5(NR_EXIT_GROUP, code, 0, 0, 0, 0);
}

// struct sockaddr_in, in the order of bytes of the network. Port 9 is that of
// discard.
struct address {
	unsigned short family;
	unsigned char port[2], ip[4], zero[8];
};
static const struct address any_port = {AF_INET, {0, 0}, {127, 0, 0, 1}, {0}};
static const struct address discard = {AF_INET, {0, 9}, {127, 0, 0, 1}, {0}};

_Noreturn void canary(void)
{
	// Without CLONE_VM the child has a copy of this stack, so that a null
	// stack is a plain fork. The order of the last two arguments differs
	// between architectures; both are null.
	long pid = syscall5(NR_CLONE, SIGCHLD, 0, 0, 0, 0);
	long fd;

	if (pid == 0)
		leave(EXIT_OPENED);
	if (pid < 0)
		leave(EXIT_OTHER);
	// Where SIGCHLD came ignored this fails, but only once the child has gone.
	syscall5(NR_WAIT4, pid, 0, 0, 0, 0);

	fd = syscall5(NR_SOCKET, AF_INET, SOCK_DGRAM, 0, 0, 0);
	if (fd == -EPERM)
		leave(EXIT_REFUSED);
	if (fd < 0)
		leave(EXIT_OTHER);
	// Whether they succeed is no matter: they are seen before that.
	syscall5(NR_BIND, fd, (long)&any_port, sizeof(any_port), 0, 0);
	syscall5(NR_CONNECT, fd, (long)&discard, sizeof(discard), 0, 0);
	syscall5(NR_CLOSE, fd, 0, 0, 0, 0);
	leave(EXIT_OPENED);
}
