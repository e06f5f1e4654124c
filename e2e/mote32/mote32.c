// SPDX-License-Identifier: Apache-2.0
// mote32 is a program for 32-bit x86: it does nothing, or with an argument opens
// one socket, AF_INET and SOCK_DGRAM, by the system call that its first letter
// names: s for socket, c for socketcall. It exits 0, or 3 if it could not.

#define AF_INET 2
#define SOCK_DGRAM 2
#define NR_EXIT_GROUP 252
#define NR_SOCKET 359
#define NR_SOCKETCALL 102
#define CALL_SOCKET 1

__asm__(".globl _start\n"
	"_start:\n"
	"	mov %esp, %eax\n"
	"	and $-16, %esp\n"
	"	sub $12, %esp\n"
	"	push %eax\n"
	"	call mote\n");

static int syscall3(int nr, long a, long b, long c)
{
	int ret;

	__asm__ volatile("int $0x80" : "=a"(ret) : "a"(nr), "b"(a), "c"(b), "d"(c) : "memory");
	return ret;
}

void mote(const long *stack)
{
	const char *const *argv = (const char *const *)(stack + 1);
	long args[3] = {AF_INET, SOCK_DGRAM, 0};
	int fd = 0;

	if (*stack > 1 && *argv[1] == 's')
		fd = syscall3(NR_SOCKET, AF_INET, SOCK_DGRAM, 0);
	else if (*stack > 1)
		fd = syscall3(NR_SOCKETCALL, CALL_SOCKET, (long)args, 0);
	for (;;)
		syscall3(NR_EXIT_GROUP, fd < 0 ? 3 : 0, 0, 0);
}
