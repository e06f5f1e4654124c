/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * The programs of an enforcing policy. A process carries its verdict with it:
 * taken at exec, under the name the executable has then, and handed to forked
 * children; a process that ran before is looked at when it opens its first
 * socket. They are pinned, and go on when the command that loaded them has
 * gone. Where a kernel takes bpf_send_signal in no hook that refuses (FACTS 23),
 * can_kill is false, and the socket is only refused.
 */
#ifndef PROFILE_ENFORCE_H
#define PROFILE_ENFORCE_H

#include "policy.h"

const volatile bool can_kill = true;

const volatile __u32 op;

/*
 * Of one image: an exec that could not be noted, as where task storage is busy
 * (before Linux 6.2), leaves what was said of the one before.
 */
struct verdict_state {
	__u32 verdict; /* enum match */
	__u32 index;
	__u64 image; /* the number of the process's execs; a forked child has its parent's */
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct verdict_state);
} verdicts SEC(".maps");

struct tally {
	__u64 kills;
	__u64 would;
	__u64 last_kill; /* of boot time, ns */
	__u64 last_would;
};

/* By the index that the list gives. One for each path, and one more that counts what could not be
 * judged. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct tally);
} tallies SEC(".maps");

const volatile __u32 others_index, errors_index;

/* sched_process_exec runs without preemption, one at a time on a CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct scratch);
} exec_walk SEC(".maps");

/* The policy's word on the executable of a task. A task without one is a kernel thread. */
static __always_inline __u32 look_up(
	struct task_struct *task, struct scratch *s, bool at_exec, __u32 *index)
{
	struct file *exe = exe_of(task);
	struct walk w = {};

	if (!exe)
		return MATCH_NO;
	*index = others_index;
	walk_exe_short(&w, exe, task, s->path, at_exec);
	return match_path(slot, op, s, key_of(s, &w), index);
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(enforce_exec, struct task_struct *task, pid_t old_pid, struct linux_binprm *bprm)
{
	struct verdict_state *v;
	struct scratch *s;
	__u32 zero = 0, verdict, index = 0;

	s = in_scope(task) ? bpf_map_lookup_elem(&exec_walk, &zero) : NULL;
	verdict = s ? look_up(task, s, true, &index) : 0;
	v = verdict ? bpf_task_storage_get(
			      &verdicts, task->group_leader, 0, BPF_LOCAL_STORAGE_GET_F_CREATE)
		    : NULL;
	if (!v) {
		bpf_task_storage_delete(&verdicts, task->group_leader);
		return 0;
	}
	v->index = index;
	v->verdict = verdict;
	v->image = task->group_leader->self_exec_id;
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(enforce_fork, struct task_struct *parent, struct task_struct *child)
{
	struct verdict_state *from, *to;

	if (child->pid != child->tgid)
		return 0;
	from = bpf_task_storage_get(&verdicts, parent->group_leader, 0, 0);
	if (!from)
		return 0;
	to = bpf_task_storage_get(&verdicts, child, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (to)
		*to = *from;
	return 0;
}

/*
 * Room for a walk where the task gets none: task storage is refused while
 * another program that uses it was interrupted on the same processor (before
 * Linux 6.2 even what is there already), and where there is no memory.
 */
#define SPARES 64

struct spare {
	__u64 taken;
	struct scratch scratch;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SPARES);
	__type(key, __u32);
	__type(value, struct spare);
} spares SEC(".maps");

static __always_inline struct spare *take_spare(void)
{
	__u32 n = bpf_get_smp_processor_id() % SPARES;
	struct spare *one = bpf_map_lookup_elem(&spares, &n);

	return one && !__sync_val_compare_and_swap(&one->taken, 0, 1) ? one : NULL;
}

static __always_inline void count_error(void)
{
	__u32 index = errors_index;
	struct tally *t = bpf_map_lookup_elem(&tallies, &index);

	if (t)
		__sync_fetch_and_add(&t->kills, 1);
}

/* look_up in room of the task's own, or spare room. */
static __always_inline __u32 look_up_in_own(struct task_struct *task, __u32 *index)
{
	struct scratch *s = bpf_task_storage_get(&walks, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	struct spare *spare;
	__u32 verdict;

	if (s) {
		verdict = look_up(task, s, false, index);
		bpf_task_storage_delete(&walks, task);
		return verdict;
	}
	spare = take_spare();
	if (!spare) {
		count_error();
		return MATCH_UNKNOWN;
	}
	verdict = look_up(task, &spare->scratch, false, index);
	__sync_val_compare_and_swap(&spare->taken, 1, 0);
	return verdict;
}

/* room is for a program that cannot be preempted; NULL where it can. */
static __always_inline __u32 judge(struct task_struct *task, struct scratch *room, __u32 *index)
{
	struct verdict_state *v = bpf_task_storage_get(&verdicts, task->group_leader, 0, 0);
	__u32 verdict;

	if (v && v->verdict && v->image == task->group_leader->self_exec_id) {
		*index = v->index;
		return v->verdict;
	}
	verdict = room ? look_up(task, room, false, index) : look_up_in_own(task, index);
	v = verdict ? bpf_task_storage_get(
			      &verdicts, task->group_leader, 0, BPF_LOCAL_STORAGE_GET_F_CREATE)
		    : NULL;
	if (v) {
		v->index = *index;
		v->verdict = verdict;
		v->image = task->group_leader->self_exec_id;
	}
	return verdict;
}

/* The mode in which the policy acts on the current process, if it does. */
static __always_inline __u32 acting(struct scratch *room, __u32 *index)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct scope *scope;
	__u32 n = slot;

	if (judge(task, room, index) != MATCH_YES || !in_scope(task) ||
		(host_only && !in_host_pidns(task)))
		return MODE_NONE;
	scope = bpf_map_lookup_elem(&scopes, &n);
	return scope ? scope->mode : MODE_NONE;
}

/* Kills the current process, where that is possible. */
static __always_inline void strike(struct tally *t, bool counted)
{
	if (can_kill)
		bpf_send_signal(SIGKILL);
	if (!counted) {
		__sync_fetch_and_add(&t->kills, 1);
		t->last_kill = bpf_ktime_get_boot_ns();
	}
}

/*
 * Whether the current process may not open a socket of the family. If so it is
 * killed, or in the monitor stage counted. A socket that another hook has
 * counted already is not counted again.
 */
static __always_inline bool refuse(struct scratch *room, bool counted)
{
	__u32 index = 0, mode = acting(room, &index);
	struct tally *t;

	t = mode ? bpf_map_lookup_elem(&tallies, &index) : NULL;
	if (!t)
		return false;
	if (mode != MODE_ENFORCE) {
		if (!counted) {
			__sync_fetch_and_add(&t->would, 1);
			t->last_would = bpf_ktime_get_boot_ns();
		}
		return false;
	}
	strike(t, counted);
	return true;
}

/* Refuses the socket and kills whoever opens it, before the call returns. */
SEC("cgroup/sock_create")
int enforce_socket(struct bpf_sock *sk)
{
	return !(wants(sk->family) && refuse(NULL, sk->type == SOCK_RAW && wants(AF_PACKET)));
}

/* Kprobes run without preemption as well. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct scratch);
} kprobe_walk SEC(".maps");

/*
 * Of every family, before anything of fmod_ret. It cannot refuse; it kills and
 * counts. The kernel leaves out programs of the trampoline, fentry and fmod_ret,
 * for as long as they were interrupted in another process on the same processor:
 * in a storm of sockets, where it preempts everywhere, now and then all of them.
 * A kprobe is not preempted, and left out only for as long as a change of some
 * map by bpf(2) was interrupted there. Loads on 6.12 and 6.1; on 6.18 as the
 * project's machines have it there are no kprobes.
 */
SEC("kprobe/security_socket_create")
int enforce_kill(struct pt_regs *regs)
{
	struct scratch *room;
	__u32 zero = 0;

	if (argument(regs, 3) || !wants(argument(regs, 0))) /* 3 says that the kernel opens it */
		return 0;
	room = bpf_map_lookup_elem(&kprobe_walk, &zero);
	if (room)
		refuse(room, false);
	return 0;
}

/* The same, where a kernel takes fmod_ret and has no kprobes. */
SEC("fentry/security_socket_create")
int BPF_PROG(enforce_kill_fentry, int family, int type, int protocol, int kern)
{
	if (!kern && wants(family))
		refuse(NULL, false);
	return 0;
}

/*
 * Of fmod_ret programs the one attached last runs first, and where it refuses the
 * others do not run: another database's policy would count nothing. So what
 * kills and counts is one of the two above, all of which run. Where they were
 * left out this one does both.
 */
SEC("fmod_ret/security_socket_create")
int BPF_PROG(enforce_create, int family, int type, int protocol, int kern, int ret)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct tally *t;
	__u32 index;

	if (ret || kern || !wants(family) || acting(NULL, &index) != MODE_ENFORCE)
		return ret;
	t = bpf_map_lookup_elem(&tallies, &index);
	if (t)
		strike(t, BPF_CORE_READ(task, signal, flags) & SIGNAL_GROUP_EXIT);
	return -EPERM;
}

/* Beside the cgroup hook; it cannot refuse, and kills before the call returns: see observe_raw. */
SEC("tp_btf/cap_capable")
int BPF_PROG(enforce_raw, const struct cred *cred, struct user_namespace *target,
	const struct user_namespace *capable, int cap, int ret)
{
	if (cap == CAP_NET_RAW)
		refuse(NULL, false);
	return 0;
}

/* It kills before the call returns, and cannot refuse: see observe_vsock. */
SEC("tp_btf/sys_enter")
int BPF_PROG(enforce_vsock, struct pt_regs *regs, long id)
{
	__u32 type;

	if (opens_vsock(regs, id, &type))
		refuse(NULL, false);
	return 0;
}

/* Loaded once, to find out what this kernel takes. */
SEC("fmod_ret/security_socket_create")
int BPF_PROG(probe_create, int family, int type, int protocol, int kern, int ret)
{
	return ret;
}

SEC("kprobe/security_socket_create")
int probe_kprobe(struct pt_regs *regs)
{
	return 0;
}

SEC("cgroup/sock_create")
int probe_kill(struct bpf_sock *sk)
{
	/* never so: the family does not exist */
	if (sk->family == 63)
		bpf_send_signal(SIGKILL);
	return 1;
}

SEC("tp_btf/sock_recv_length")
int BPF_PROG(probe_received, struct sock *sk, int received, int flags)
{
	return 0;
}

SEC("tp_btf/cap_capable")
int BPF_PROG(probe_raw, const struct cred *cred, struct user_namespace *target,
	const struct user_namespace *capable, int cap, int ret)
{
	return 0;
}

#endif
