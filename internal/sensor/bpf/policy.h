/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * What every program of the sensor shares: whom a policy is about, and the
 * lists of the policies in force. The three maps are pinned in the directory
 * of one database, so that learning can tell a listed process by the very
 * look-up that would kill it.
 */
#ifndef PROFILE_POLICY_H
#define PROFILE_POLICY_H

#include "path.h"

#define MAX_POLICIES 8

enum mode {
	MODE_NONE = 0, /* the slot is free */
	MODE_MONITOR = 1,
	MODE_ENFORCE = 2,
};

/* How a policy compares the executable with its list. */
enum match_op {
	OP_IN = 0,
	OP_NOT_IN = 1,
	OP_PREFIX = 2,
	OP_NOT_PREFIX = 3,
};

/* Of the policy that a program was loaded for. */
const volatile __u32 slot;
const volatile __u64 scope_id;	  /* id of the cgroup; unused at level 0 */
const volatile __u32 scope_level; /* its depth; 0 is the whole machine */
const volatile bool host_only;	  /* only processes of the first pid namespace */
const volatile __u64 families;	  /* bits by their numbers, all below 64 */

const volatile long nr_socket; /* of the system call, for AF_VSOCK */

struct path_key {
	char text[SHORT_ZONE]; /* padded with zeroes: at most 255 bytes of path */
} __attribute__((aligned(8)));

struct scope {
	__u64 cgroup;
	__u32 level;
	__u32 mode;
	__u32 host_only;
	__u32 op; /* enum match_op */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, MAX_POLICIES);
	__type(key, __u32);
	__array(
		values, struct {
			__uint(type, BPF_MAP_TYPE_HASH);
			__uint(max_entries, 1);
			__uint(map_flags, BPF_F_NO_PREALLOC);
			__type(key, struct path_key);
			__type(value, __u32); /* index into the policy's counts */
		});
} lists SEC(".maps");

/* The same for the prefixes of a policy that compares those: a key is how many bits count, then a
 * path. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, MAX_POLICIES);
	__type(key, __u32);
	__array(
		values, struct {
			__uint(type, BPF_MAP_TYPE_LPM_TRIE);
			__uint(max_entries, 1);
			__uint(map_flags, BPF_F_NO_PREALLOC);
			__uint(key_size, sizeof(__u32) + SHORT_ZONE);
			__uint(value_size, sizeof(__u32));
		});
} prefixes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_POLICIES);
	__type(key, __u32);
	__type(value, struct scope);
} scopes SEC(".maps");

/* One number that goes up whenever a list or a scope changes. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} epoch SEC(".maps");

struct scratch {
	char path[SHORT_ZONE + NAME_MAX + 1];
	__u32 pad;
	__u32 bits; /* with the key behind it the key of a prefix */
	struct path_key key;
	/* The verifier of 6.1 takes the key alone for that of a prefix, which is longer. */
	__u64 beyond;
};

/*
 * Room for one walk. A cgroup program may be preempted by another on the same
 * CPU, so this is the task's own, and taken back at once.
 */
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct scratch);
} walks SEC(".maps");

static __always_inline struct cgroup *cgroup_of(struct task_struct *task)
{
	return BPF_CORE_READ(task, cgroups, dfl_cgrp);
}

static __always_inline __u64 cgroup_id(struct cgroup *cgrp)
{
	return BPF_CORE_READ(cgrp, kn, id);
}

static __always_inline bool is_below(struct cgroup *cgrp, __u64 id, __u32 level)
{
	struct cgroup *above;

	if (!level)
		return true;
	if (BPF_CORE_READ(cgrp, level) < (int)level)
		return false;
	if (bpf_core_read(&above, sizeof(above), &cgrp->ancestors[level]))
		return false;
	return cgroup_id(above) == id;
}

static __always_inline bool in_scope(struct task_struct *task)
{
	return !scope_level || is_below(cgroup_of(task), scope_id, scope_level);
}

static __always_inline bool in_host_pidns(struct task_struct *task)
{
	return BPF_CORE_READ(task, thread_pid, level) == 0;
}

/* An argument, the nth of the first four, of a function or a system call, as an int. */
static __always_inline __u32 argument(struct pt_regs *regs, int n)
{
	struct pt_regs___arm64 *arm = (void *)regs;

	if (!bpf_core_field_exists(regs->di))
		return BPF_CORE_READ(arm, regs[n]);
	return n == 0	? BPF_CORE_READ(regs, di)
	       : n == 1 ? BPF_CORE_READ(regs, si)
	       : n == 2 ? BPF_CORE_READ(regs, dx)
			: BPF_CORE_READ(regs, cx);
}

/*
 * Whether a system call opens an AF_VSOCK socket, and of which type. A 32-bit
 * system call has other numbers, and is not seen.
 */
static __always_inline bool opens_vsock(struct pt_regs *regs, long id, __u32 *type)
{
	struct task_struct *task;

	if (id != nr_socket)
		return false;
	if (bpf_core_field_exists(regs->di)) {
		task = bpf_get_current_task_btf();
		if (bpf_core_field_exists(task->thread_info.status) &&
			BPF_CORE_READ(task, thread_info.status) & TS_COMPAT)
			return false;
	}
	*type = argument(regs, 1);
	return argument(regs, 0) == AF_VSOCK;
}

static __always_inline bool wants(__u32 family)
{
	return family < 64 && (families >> family) & 1;
}

/* The path of a walk as a key; false if no policy can name it. */
static __always_inline bool key_of(struct scratch *s, const struct walk *w)
{
	__u32 len = SHORT_ZONE - w->pos;

	if (!is_nameable(w) || len >= SHORT_ZONE)
		return false;
	keep_masked(len);
	__builtin_memset(&s->key, 0, sizeof(s->key));
	bpf_probe_read_kernel(
		s->key.text, len & (SHORT_ZONE - 1), &s->path[w->pos & (SHORT_ZONE - 1)]);
	s->bits = len * 8;
	return true;
}

enum match {
	MATCH_UNKNOWN = 0, /* the policy has no list (yet) */
	MATCH_NO = 1,
	MATCH_YES = 2,
};

/*
 * The word of the policy in slot n on an executable; named says that it has a
 * key. Where one of the list's own values matched, index is that one's.
 */
static __always_inline enum match match_path(
	__u32 n, __u32 op, struct scratch *s, bool named, __u32 *index)
{
	void *list = op < OP_PREFIX ? bpf_map_lookup_elem(&lists, &n)
				    : bpf_map_lookup_elem(&prefixes, &n);
	__u32 *found = NULL;

	if (!list)
		return MATCH_UNKNOWN;
	if (named && op < OP_PREFIX)
		found = bpf_map_lookup_elem(list, &s->key);
	else if (named)
		found = bpf_map_lookup_elem(list, &s->bits);
	if (found)
		*index = *found;
	return (op == OP_NOT_IN || op == OP_NOT_PREFIX) == !found ? MATCH_YES : MATCH_NO;
}

#endif
