// SPDX-License-Identifier: Apache-2.0
// mote is the smallest of programs, of which a test can have hundreds: it does
// nothing, or with an argument opens one socket, AF_INET and SOCK_DGRAM, and
// exits 0.

#define AF_INET 2
#define SOCK_DGRAM 2

#if defined(__x86_64__)

#define NR_SOCKET 41
#define NR_EXIT_GROUP 231

__asm__(".globl _start\n"
	"_start:\n"
	"	mov %rsp, %rdi\n"
	"	and $-16, %rsp\n"
	"	call mote\n");

static long syscall3(long nr, long a, long b, long c)
{
	long ret;

	__asm__ volatile("syscall"
		: "=a"(ret)
		: "a"(nr), "D"(a), "S"(b), "d"(c)
		: "rcx", "r11", "memory");
	return ret;
}

#elif defined(__aarch64__)

#define NR_SOCKET 198
#define NR_EXIT_GROUP 94

__asm__(".globl _start\n"
	"_start:\n"
	"	mov x0, sp\n"
	"	bl mote\n");

static long syscall3(long nr, long a, long b, long c)
{
	register long x8 __asm__("x8") = nr;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;

	__asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
	return x0;
}

#else
#error "no system calls for this architecture"
#endif

void mote(const long *argc)
{
	long failed = *argc > 1 && syscall3(NR_SOCKET, AF_INET, SOCK_DGRAM, 0) < 0;

	for (;;)
		syscall3(NR_EXIT_GROUP, failed ? 3 : 0, 0, 0);
}
