/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * The programs of an audit policy that follow processes: what starts, forks,
 * ends, and leaves the cgroup. They decide nothing. Loaded and run on 6.18, 6.12
 * and 6.1; tp_btf needs BTF.
 */
#ifndef PROFILE_OBSERVE_H
#define PROFILE_OBSERVE_H

#include "event.h"

/*
 * With a cgroup, a process that left it is followed to its end, and so is what
 * it forks. One that came into the cgroup without an exec is fresh: nothing was
 * told of it yet.
 */
static __always_inline bool track(struct task_struct *task, bool inside, bool *fresh)
{
	struct told *t;

	if (!scope_level)
		return true;
	t = bpf_task_storage_get(
		&told, task->group_leader, 0, inside ? BPF_LOCAL_STORAGE_GET_F_CREATE : 0);
	if (!t)
		return inside;
	if (!t->tracked) {
		if (!inside)
			return false;
		t->tracked = 1;
		*fresh = true;
	}
	return true;
}

static __always_inline void tell_anew(struct told *t)
{
	t->sockets = 0;
	t->ways = 0;
	__builtin_memset(t->uses, 0, sizeof(t->uses));
}

/* Follows a process no longer. True if it was followed. */
static __always_inline bool forget(struct task_struct *leader)
{
	struct told *t = scope_level ? bpf_task_storage_get(&told, leader, 0, 0) : NULL;
	bool tracked = t && t->tracked;

	if (tracked)
		bpf_task_storage_delete(&told, leader);
	return tracked;
}

static __always_inline void tell_end(struct task_struct *task, __u32 code)
{
	struct event e = {};

	fill(&e, task, KIND_EXIT);
	e.code = code;
	post(&e);
}

/* The path of the executable, and the header before it. Returns where the whole begins. */
static __always_inline __u32 build_head(struct build *b, struct event *e, struct task_struct *task)
{
	struct file *exe = exe_of(task);
	struct walk w;
	__u32 at;

	if (exe) {
		walk_exe_long(&w, exe, task, &b->data[HEAD], e->kind == KIND_EXEC);
		fill_file(e, exe);
	} else {
		w.pos = LONG_ZONE;
		w.end = WALK_NO_NAME;
	}
	e->walk = w.end;
	at = w.pos & (LONG_ZONE - 1);
	if (w.pos >= LONG_ZONE)
		at = LONG_ZONE;
	e->path_len = LONG_ZONE - at;
	return HEAD + at - sizeof(*e);
}

static __always_inline __u32 append_str(struct build *b, __u32 at, __u16 *len, const char *text)
{
	long n = bpf_probe_read_kernel_str(&b->data[at & TAIL_MASK], LONG_ZONE, text);

	*len = n > 0 ? n - 1 : 0;
	return at + *len;
}

static __always_inline __u32 append_args(
	struct build *b, __u32 at, __u16 *len, struct task_struct *task)
{
	unsigned long from = BPF_CORE_READ(task, mm, arg_start);
	__u64 n = BPF_CORE_READ(task, mm, arg_end) - from;

	if (n >= MAX_ARGS)
		n = MAX_ARGS - 1;
	keep_masked(n);
	n &= MAX_ARGS - 1;
	*len = 0;
	if (n && !bpf_probe_read_user(&b->data[at & TAIL_MASK], n, (void *)from))
		*len = n;
	return at + *len;
}

static __always_inline __u32 append_cwd(
	struct build *b, __u32 at, __u16 *len, struct task_struct *task)
{
	struct fs_struct *fs = BPF_CORE_READ(task, fs);
	struct walk w;
	__u32 n;

	walk_begin(&w, &fs->pwd, task, b->cwd, LONG_ZONE);
	bpf_loop(WALK_STEPS, walk_long, &w, 0);
	walk_finish(&w, LONG_ZONE);
	n = LONG_ZONE - w.pos;
	keep_masked(n);
	n &= LONG_ZONE - 1;
	bpf_probe_read_kernel(&b->data[at & TAIL_MASK], n, &b->cwd[w.pos & (LONG_ZONE - 1)]);
	*len = n;
	return at + n;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(observe_exec, struct task_struct *task, pid_t old_pid, struct linux_binprm *bprm)
{
	struct event e = {};
	struct build *b;
	__u32 zero = 0, from, to;
	const char *name, *interp;
	bool fresh = false;

	if (!in_scope(task)) {
		if (forget(task->group_leader))
			tell_end(task, 0);
		return 0;
	}
	track(task, true, &fresh);
	/* What was told is told of the image that has just gone. */
	if (scope_level) {
		struct told *t = bpf_task_storage_get(&told, task->group_leader, 0, 0);

		if (t) {
			tell_anew(t);
			t->known = 0;
		}
	} else {
		bpf_task_storage_delete(&told, task->group_leader);
	}
	b = bpf_map_lookup_elem(&builds, &zero);
	if (!b)
		return 0;
	fill(&e, task, KIND_EXEC);
	from = build_head(b, &e, task);
	name = BPF_CORE_READ(bprm, filename);
	interp = BPF_CORE_READ(bprm, interp);
	if (name != interp)
		e.flags |= FLAG_SCRIPT;
	to = append_str(b, TAIL, &e.name_len, name);
	to = append_args(b, to, &e.args_len, task);
	to = append_cwd(b, to, &e.cwd_len, task);
	from &= 0x1fff;
	if (from > TAIL)
		return 0;
	bpf_probe_read_kernel(&b->data[from], sizeof(e), &e);
	to -= from;
	keep_masked(to);
	to &= TAIL_MASK;
	count(KIND_EXEC, !bpf_ringbuf_output(&events, &b->data[from], to, wake(to)));
	return 0;
}

/* Tells of a process as the iterator would have, had it been there. */
static __always_inline void tell_task(struct task_struct *task)
{
	struct event e = {};
	struct build *b;
	__u32 zero = 0, from, len;

	b = bpf_map_lookup_elem(&builds, &zero);
	if (!b)
		return;
	fill(&e, task, KIND_TASK);
	from = build_head(b, &e, task) & 0x1fff;
	if (from > TAIL)
		return;
	bpf_probe_read_kernel(&b->data[from], sizeof(e), &e);
	len = (TAIL - from) & 0x1fff;
	count(KIND_TASK, !bpf_ringbuf_output(&events, &b->data[from], len, wake(len)));
}

/* What a process that has left does outside is not seen. */
static __always_inline void tell_left(struct task_struct *task)
{
	struct event e = {};

	fill(&e, task, KIND_LEFT);
	post(&e);
}

/*
 * A child may be made in another cgroup than its parent's (CLONE_INTO_CGROUP):
 * nothing moves there that observe_move would see. One that shares its parent's
 * memory is on its way to an exec, or told when it does something.
 */
SEC("tp_btf/sched_process_fork")
int BPF_PROG(observe_fork, struct task_struct *parent, struct task_struct *child)
{
	bool within = in_scope(parent), inside = in_scope(child), fresh = false;
	struct event e = {};

	if (child->pid != child->tgid) {
		if (within && !inside)
			tell_left(child);
		return 0;
	}
	if (!track(parent, within, &fresh)) {
		if (inside && child->mm != parent->mm) {
			track(child, true, &fresh);
			tell_task(child);
		}
		return 0;
	}
	if (fresh)
		tell_task(parent);
	track(child, true, &fresh);
	fill(&e, parent, KIND_FORK);
	e.child = child->pid;
	e.child_start = child->start_boottime;
	post(&e);
	if (within && !inside)
		tell_left(child);
	return 0;
}

/*
 * The last thread of a process ends it. exit_mm has run by then, so that one
 * of which nothing was told has no executable any more.
 */
SEC("tp_btf/sched_process_exit")
int BPF_PROG(observe_exit, struct task_struct *task)
{
	struct signal_struct *signal = task->signal;
	bool fresh = false;

	if (signal->live.counter || !track(task, in_scope(task), &fresh) || fresh)
		return 0;
	tell_end(task,
		signal->flags & SIGNAL_GROUP_EXIT ? signal->group_exit_code : task->exit_code);
	return 0;
}

/*
 * One that comes into the cgroup may do nothing, and is there. What one that
 * leaves does outside is not seen, so that it is told; an exec there is the end
 * of the image that was followed.
 */
SEC("tp_btf/cgroup_attach_task")
int BPF_PROG(observe_move, struct cgroup *to, const char *path, struct task_struct *task)
{
	struct told *t;
	bool fresh = false;

	if (in_scope(task)) {
		track(task, true, &fresh);
		if (fresh)
			tell_task(task);
		return 0;
	}
	t = bpf_task_storage_get(&told, task->group_leader, 0, 0);
	if (t && t->tracked)
		tell_left(task);
	return 0;
}

#endif
