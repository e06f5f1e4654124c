// SPDX-License-Identifier: Apache-2.0
// A thread of the sidedoor that is in another cgroup than the rest of it.
#include <fcntl.h>
#include <linux/sched.h>

/*
 * Makes a thread in a cgroup (clone3 with CLONE_INTO_CGROUP), which opens a
 * socket there and ends. Both groups are of one threaded subtree.
 */
static void stray(const char *group, struct spec s)
{
#ifdef __x86_64__
	static char stack[65536];
	static volatile long opened = -ECHILD;
	struct clone_args args = {
		.flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
			 CLONE_INTO_CGROUP,
		.stack = (unsigned long)stack,
		.stack_size = sizeof(stack),
		.cgroup = open(group, O_RDONLY | O_DIRECTORY | O_CLOEXEC),
	};
	register long family __asm__("r12") = s.family;
	register long type __asm__("r13") = s.type;
	register volatile long *to __asm__("r14") = &opened;
	long ret;

	__asm__ volatile("syscall\n"
			 "	test %%rax, %%rax\n"
			 "	jnz 1f\n"
			 "	mov %[socket], %%eax\n"
			 "	mov %%r12, %%rdi\n"
			 "	mov %%r13, %%rsi\n"
			 "	xor %%edx, %%edx\n"
			 "	syscall\n"
			 "	mov %%rax, (%%r14)\n"
			 "	mov %[exit], %%eax\n"
			 "	xor %%edi, %%edi\n"
			 "	syscall\n"
			 "1:\n"
		: "=a"(ret)
		: "a"(SYS_clone3), "D"(&args), "S"(sizeof(args)), "r"(family), "r"(type),
		"r"(to), [socket] "i"(SYS_socket), [exit] "i"(SYS_exit)
		: "rcx", "rdx", "r11", "memory");
	errno = -ret;
	if (ret < 0)
		fail("clone3");
	while (opened == -ECHILD)
		usleep(1000);
	errno = -opened;
	if (opened < 0)
		fail("socket of the thread");
#else
	fprintf(stderr, "no such thread here\n");
	exit(2);
#endif
}
