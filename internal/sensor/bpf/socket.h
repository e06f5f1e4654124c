/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * The programs of an audit policy that see sockets being opened. They decide
 * nothing; each says on which kernels it loads.
 */
#ifndef PROFILE_SOCKET_H
#define PROFILE_SOCKET_H

#include "observe.h"

/* Bits of the slots whose policies were found to act no more, set by user space. */
volatile __u32 lapsed;

/*
 * The mode of the policy in slot n, if it acts on the current process, whose
 * executable is in its scratch. A function of its own for the verifier, which
 * looks at it once, not at each turn of a loop. It finds the scratch by itself:
 * of an argument 6.1 does not know that it may be the key of a map.
 */
__noinline int slot_mode(__u32 n, bool named)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct scope *scope = bpf_map_lookup_elem(&scopes, &n);
	struct scratch *s;
	__u32 index;

	if (!scope || !scope->mode || (lapsed >> (n & 31)) & 1 ||
		(scope->host_only && !in_host_pidns(task)) ||
		!is_below(cgroup_of(task), scope->cgroup, scope->level))
		return MODE_NONE;
	s = bpf_task_storage_get(&walks, task, 0, 0);
	if (!s)
		return MODE_NONE;
	return match_path(n, scope->op, s, named, &index) == MATCH_YES ? scope->mode : MODE_NONE;
}

/* The mode of the policy that acts on the current process, if one does. */
static __always_inline __u32 listed_mode(bool named)
{
	__u32 i, found = 0;

	/* the modes are bits, and the stricter is the higher */
	for (i = 0; i < MAX_POLICIES; i++)
		found |= slot_mode(i, named);
	return found & MODE_ENFORCE ? MODE_ENFORCE : found;
}

struct socket_event {
	struct event head;
	char path[SHORT_ZONE] __attribute__((aligned(8)));
};

/* Fills in whose socket an event is about, and which policy acts on it. */
static __always_inline void fill_socket(
	struct socket_event *out, struct task_struct *task, __u16 kind)
{
	struct file *exe = exe_of(task);
	struct walk w = {};
	struct scratch *s;
	bool named;

	__builtin_memset(out, 0, sizeof(*out));
	s = bpf_task_storage_get(&walks, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (s && exe) {
		walk_exe_short(&w, exe, task, s->path, false);
		named = key_of(s, &w);
		out->head.listed = listed_mode(named);
		if (named) {
			__builtin_memcpy(out->path, s->key.text, sizeof(out->path));
			out->head.path_len = SHORT_ZONE - w.pos;
		}
	}
	if (s)
		bpf_task_storage_delete(&walks, task);
	fill(&out->head, task, kind);
	out->head.walk = w.end;
}

/* Tells one socket. False if it could not be told. */
static __always_inline bool tell_socket(
	struct task_struct *task, __u32 family, __u32 type, __u32 protocol)
{
	struct socket_event *out;

	out = bpf_ringbuf_reserve(&events, sizeof(*out), 0);
	if (!out) {
		count(KIND_SOCKET, false);
		return false;
	}
	fill_socket(out, task, KIND_SOCKET);
	out->head.family = family;
	out->head.type = type;
	out->head.protocol = protocol;
	bpf_ringbuf_submit(out, wake(sizeof(*out)));
	count(KIND_SOCKET, true);
	return true;
}

/* Of the families, AF_VSOCK, AF_XDP and AF_SMC share their bits: their types are below 8. */
static __always_inline __u64 socket_bit(__u32 family, __u32 type)
{
	__u32 slot = family == AF_INET ? 0 : family == AF_INET6 ? 1 : family == AF_PACKET ? 2 : 3;

	type = family == AF_SMC ? (type & 7) | 8 : type & 15;
	return 1ULL << (slot * 16 + type);
}

/*
 * What was told of the current process under the lists in force and in its
 * cgroup; with either changed all is told anew. The number is read before the
 * lists are, so that a list swapped meanwhile is asked again.
 */
static __always_inline struct told *told_of(struct task_struct *task)
{
	__u64 now, cgroup, *number;
	struct told *t;
	__u32 zero = 0;

	number = bpf_map_lookup_elem(&epoch, &zero);
	now = number ? *number : 0;
	cgroup = cgroup_id(cgroup_of(task));
	t = bpf_task_storage_get(&told, task->group_leader, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (t && (t->epoch != now || t->cgroup != cgroup)) {
		tell_anew(t);
		t->epoch = now;
		t->cgroup = cgroup;
	}
	return t;
}

/* Tells a socket, once for each image, family and type. */
static __always_inline void see_socket(__u32 family, __u32 type, __u32 protocol)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u64 bit = socket_bit(family, type);
	struct told *t = told_of(task);

	if (t && t->sockets & bit)
		return;
	if (tell_socket(task, family, type, protocol) && t) {
		__sync_fetch_and_or(&t->sockets, bit);
		__sync_fetch_and_or(&t->known, bit);
	}
}

/*
 * Sees AF_INET and AF_INET6 of every type, not those that the kernel opens for
 * itself. Loads on 6.18; on 6.12 and 6.1 a cgroup program has no task storage.
 */
SEC("cgroup/sock_create")
int observe_socket(struct bpf_sock *sk)
{
	if (wants(sk->family))
		see_socket(sk->family, sk->type, sk->protocol);
	return 1;
}

/*
 * Sees every family, in every cgroup. Loads on 6.12 and 6.1, not on 6.18 as
 * the project's machines have it, which refuse fentry. Of fmod_ret programs the
 * one attached last runs first, and what it refuses the others do not see:
 * fentry sees what is refused as well.
 */
SEC("fentry/security_socket_create")
int BPF_PROG(observe_create, int family, int type, int protocol, int kern)
{
	if (!kern && wants(family) && in_scope(bpf_get_current_task_btf()))
		see_socket(family, type, protocol);
	return 0;
}

/*
 * Beside the cgroup hook: AF_PACKET, AF_XDP and raw sockets need CAP_NET_RAW,
 * and whether that is granted or not, it was asked for. The family is not to
 * be seen. The tracepoint is in 6.18, not in 6.12 and 6.1.
 */
SEC("tp_btf/cap_capable")
int BPF_PROG(observe_raw, const struct cred *cred, struct user_namespace *target,
	const struct user_namespace *capable, int cap, int ret)
{
	if (cap == CAP_NET_RAW && in_scope(bpf_get_current_task_btf()))
		see_socket(AF_PACKET, 0, 0);
	return 0;
}

/*
 * AF_VSOCK needs no capability and is in no cgroup hook. This taxes every
 * system call of the machine, so that it is attached only where it was asked
 * for; it does not see int 0x80 and io_uring (FACTS 24, 37).
 */
SEC("tp_btf/sys_enter")
int BPF_PROG(observe_vsock, struct pt_regs *regs, long id)
{
	__u32 type;

	if (opens_vsock(regs, id, &type) && in_scope(bpf_get_current_task_btf()))
		see_socket(AF_VSOCK, type, 0);
	return 0;
}

#endif
