/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * The programs of an audit policy: what starts, forks, ends and opens network
 * sockets. They decide nothing. Loaded and run on 6.18; tp_btf needs BTF.
 */
#ifndef PROFILE_OBSERVE_H
#define PROFILE_OBSERVE_H

#include "policy.h"

enum kind {
	KIND_EXEC = 1,
	KIND_FORK = 2,
	KIND_EXIT = 3,
	KIND_SOCKET = 4,
	KIND_TASK = 5, /* from the iterator: it ran before */
	KIND_HELD = 6, /* from the iterator: a socket already open */
	KIND_LEFT = 7, /* the process has left the cgroup of the policy */
	KINDS = 8,
};

enum flag {
	FLAG_SCRIPT = 1,     /* the name is a script, the path its interpreter */
	FLAG_HOST_PIDNS = 2, /* the process is of the first pid namespace */
};

/* What the ring carries: this, then path, name, args and cwd, without zeroes between. */
struct event {
	__u64 time;  /* of boot time, ns, as all times here */
	__u64 start; /* of the process: tells it from others of its pid */
	__u64 parent_start;
	__u64 child_start; /* KIND_FORK */
	__u64 cgroup;
	__u64 ino; /* of the file, KIND_EXEC and KIND_TASK, and what follows */
	__s64 size;
	__s64 ctime_sec;
	__u32 ctime_nsec;
	__u32 dev; /* as the kernel keeps it: 12 bits of major, 20 of minor */
	__u32 pid; /* of the process: the kernel's tgid */
	__u32 tid;
	__u32 parent;
	__u32 child; /* KIND_FORK */
	__u32 uid;
	__u32 auid;
	__u32 code; /* KIND_EXIT: as wait(2) gives it */
	__u32 pidns;
	__u16 kind;
	__u16 flags;
	__u16 family; /* KIND_SOCKET and KIND_HELD, as type and protocol */
	__u16 type;
	__u16 protocol;
	__u16 listed; /* KIND_SOCKET: enum mode of the policy that acts on it */
	__u16 walk;   /* enum walk_end */
	__u16 path_len;
	__u16 name_len;
	__u16 args_len;
	__u16 cwd_len;
	__u16 pad;
};

#define MAX_ARGS 2048
#define HEAD 512
#define TAIL_MASK 0x3fff
#define TAIL (HEAD + LONG_ZONE)

/*
 * An exec being put together: the header goes right before the path, which
 * grows backwards to TAIL; the rest follows from TAIL on.
 */
struct build {
	char data[TAIL_MASK + 1 + LONG_ZONE];
	char cwd[LONG_ZONE + NAME_MAX + 1];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct build);
} builds SEC(".maps");

/* The iterators' own: they run one at a time, but may be preempted. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct build);
} iter_build SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 << 20);
} events SEC(".maps");

struct count {
	__u64 posted; /* put into the ring, or lost */
	__u64 lost;
};

/* By kind. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, KINDS);
	__type(key, __u32);
	__type(value, struct count);
} delivered SEC(".maps");

/* What was already told of a process, so that a socket is told once. */
struct told {
	__u64 sockets; /* bits by family and type */
	__u64 cgroup;
	__u64 epoch;
	__u32 tracked; /* was in the cgroup of the policy once */
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct told);
} told SEC(".maps");

static __always_inline void count(__u32 kind, bool ok)
{
	struct count *c = bpf_map_lookup_elem(&delivered, &kind);

	if (!c)
		return;
	__sync_fetch_and_add(&c->posted, 1);
	if (!ok)
		__sync_fetch_and_add(&c->lost, 1);
}

static __always_inline void fill(struct event *e, struct task_struct *task, __u16 kind)
{
	struct task_struct *leader = BPF_CORE_READ(task, group_leader);
	struct task_struct *parent = BPF_CORE_READ(task, real_parent);
	struct pid *pid = BPF_CORE_READ(task, thread_pid);
	__u32 level;
	struct upid upid = {};

	e->time = bpf_ktime_get_boot_ns();
	e->kind = kind;
	e->pid = BPF_CORE_READ(task, tgid);
	e->tid = BPF_CORE_READ(task, pid);
	e->start = BPF_CORE_READ(leader, start_boottime);
	e->parent = BPF_CORE_READ(parent, tgid);
	e->parent_start = BPF_CORE_READ(parent, group_leader, start_boottime);
	e->uid = BPF_CORE_READ(task, cred, uid.val);
	e->auid = bpf_core_field_exists(task->loginuid) ? BPF_CORE_READ(task, loginuid.val)
							: (__u32)-1;
	e->cgroup = cgroup_id(cgroup_of(task));
	level = BPF_CORE_READ(pid, level);
	if (!level)
		e->flags |= FLAG_HOST_PIDNS;
	bpf_core_read(&upid, sizeof(upid), &pid->numbers[level & 31]);
	if (upid.ns)
		e->pidns = BPF_CORE_READ(upid.ns, ns.inum);
}

static __always_inline void fill_file(struct event *e, struct file *file)
{
	struct inode *inode = BPF_CORE_READ(file, f_inode);
	struct inode___6_6 *newer = (void *)inode;
	struct inode___6_1 *older = (void *)inode;

	e->ino = BPF_CORE_READ(inode, i_ino);
	e->size = BPF_CORE_READ(inode, i_size);
	e->dev = BPF_CORE_READ(inode, i_sb, s_dev);
	if (bpf_core_field_exists(inode->i_ctime_sec)) {
		e->ctime_sec = BPF_CORE_READ(inode, i_ctime_sec);
		/* the top bit says that it was asked for, from 6.13 */
		e->ctime_nsec = BPF_CORE_READ(inode, i_ctime_nsec) & 0x7fffffff;
	} else if (bpf_core_field_exists(newer->__i_ctime)) {
		e->ctime_sec = BPF_CORE_READ(newer, __i_ctime.tv_sec);
		e->ctime_nsec = BPF_CORE_READ(newer, __i_ctime.tv_nsec);
	} else {
		e->ctime_sec = BPF_CORE_READ(older, i_ctime.tv_sec);
		e->ctime_nsec = BPF_CORE_READ(older, i_ctime.tv_nsec);
	}
}

/* Puts an event that has nothing behind it into the ring. */
static __always_inline bool post(const struct event *e)
{
	bool ok = !bpf_ringbuf_output(&events, (void *)e, sizeof(*e), 0);

	count(e->kind, ok);
	return ok;
}

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

		if (t)
			t->sockets = 0;
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
	count(KIND_EXEC, !bpf_ringbuf_output(&events, &b->data[from], to & TAIL_MASK, 0));
	return 0;
}

/* Tells of a process as the iterator would have, had it been there. */
static __always_inline void tell_task(struct task_struct *task)
{
	struct event e = {};
	struct build *b;
	__u32 zero = 0, from;

	b = bpf_map_lookup_elem(&builds, &zero);
	if (!b)
		return;
	fill(&e, task, KIND_TASK);
	from = build_head(b, &e, task) & 0x1fff;
	if (from > TAIL)
		return;
	bpf_probe_read_kernel(&b->data[from], sizeof(e), &e);
	count(KIND_TASK, !bpf_ringbuf_output(&events, &b->data[from], (TAIL - from) & 0x1fff, 0));
}

/* A child put into the cgroup from outside is told when it does something. */
SEC("tp_btf/sched_process_fork")
int BPF_PROG(observe_fork, struct task_struct *parent, struct task_struct *child)
{
	struct event e = {};
	bool fresh = false;

	if (child->pid != child->tgid || !track(parent, in_scope(parent), &fresh))
		return 0;
	if (fresh)
		tell_task(parent);
	track(child, true, &fresh);
	fill(&e, parent, KIND_FORK);
	e.child = child->pid;
	e.child_start = child->start_boottime;
	post(&e);
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
	struct event e = {};
	struct told *t;
	bool fresh = false;

	if (in_scope(task)) {
		track(task, true, &fresh);
		if (fresh)
			tell_task(task);
		return 0;
	}
	t = bpf_task_storage_get(&told, task->group_leader, 0, 0);
	if (!t || !t->tracked)
		return 0;
	fill(&e, task, KIND_LEFT);
	post(&e);
	return 0;
}

/* The mode of the policy that acts on this process, if one does. */
static __always_inline __u32 listed_mode(struct task_struct *task, struct scratch *s, bool named)
{
	struct cgroup *cgrp = cgroup_of(task);
	bool host = in_host_pidns(task);
	__u32 i, index, mode = MODE_NONE;
	struct scope *scope;

	for (i = 0; i < MAX_POLICIES; i++) {
		__u32 n = i;

		scope = bpf_map_lookup_elem(&scopes, &n);
		if (!scope || scope->mode <= mode || (scope->host_only && !host) ||
			!is_below(cgrp, scope->cgroup, scope->level))
			continue;
		if (match_path(n, scope->op, s, named, &index) == MATCH_YES)
			mode = scope->mode;
	}
	return mode;
}

struct socket_event {
	struct event head;
	char path[SHORT_ZONE] __attribute__((aligned(8)));
};

/* Tells one socket. False if it could not be told. */
static __always_inline bool tell_socket(
	struct task_struct *task, __u32 family, __u32 type, __u32 protocol)
{
	struct file *exe = exe_of(task);
	struct socket_event *out;
	struct scratch *s;
	struct walk w = {};
	__u32 mode = MODE_NONE;
	bool named;

	out = bpf_ringbuf_reserve(&events, sizeof(*out), 0);
	if (!out) {
		count(KIND_SOCKET, false);
		return false;
	}
	__builtin_memset(out, 0, sizeof(*out));
	s = bpf_task_storage_get(&walks, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (s && exe) {
		walk_exe_short(&w, exe, task, s->path, false);
		named = key_of(s, &w);
		mode = listed_mode(task, s, named);
		if (named) {
			__builtin_memcpy(out->path, s->key.text, sizeof(out->path));
			out->head.path_len = SHORT_ZONE - w.pos;
		}
	}
	if (s)
		bpf_task_storage_delete(&walks, task);
	fill(&out->head, task, KIND_SOCKET);
	out->head.walk = w.end;
	out->head.family = family;
	out->head.type = type;
	out->head.protocol = protocol;
	out->head.listed = mode;
	bpf_ringbuf_submit(out, 0);
	count(KIND_SOCKET, true);
	return true;
}

/* Of the families, AF_VSOCK and AF_XDP share their bits: their types differ. */
static __always_inline __u64 socket_bit(__u32 family, __u32 type)
{
	__u32 slot = family == AF_INET ? 0 : family == AF_INET6 ? 1 : family == AF_PACKET ? 2 : 3;

	return 1ULL << (slot * 16 + (type & 15));
}

/* Tells a socket, once for each image, family and type. */
static __always_inline void see_socket(__u32 family, __u32 type, __u32 protocol)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u64 bit, now, cgroup, *number;
	struct told *t;
	__u32 zero = 0;

	/* Read before the lists are, so that a list swapped meanwhile is asked again. */
	number = bpf_map_lookup_elem(&epoch, &zero);
	now = number ? *number : 0;
	bit = socket_bit(family, type);
	cgroup = cgroup_id(cgroup_of(task));
	t = bpf_task_storage_get(&told, task->group_leader, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (t) {
		if (t->epoch != now || t->cgroup != cgroup) {
			t->sockets = 0;
			t->epoch = now;
			t->cgroup = cgroup;
		}
		if (t->sockets & bit)
			return;
	}
	if (tell_socket(task, family, type, protocol) && t)
		__sync_fetch_and_or(&t->sockets, bit);
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
 * the project's machines have it, which refuse fmod_ret.
 */
SEC("fmod_ret/security_socket_create")
int BPF_PROG(observe_create, int family, int type, int protocol, int kern, int ret)
{
	if (!kern && wants(family) && in_scope(bpf_get_current_task_btf()))
		see_socket(family, type, protocol);
	return ret;
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

/* Processes that ran before. Their threads have the leader's image; a leader that has gone has
 * none. */
SEC("iter/task")
int observe_task(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct event e = {};
	struct build *b;
	__u32 zero = 0, from;
	bool fresh = false;

	if (!task || !task->mm || (task->pid != task->tgid && task->group_leader->mm))
		return 0;
	if (!track(task, in_scope(task), &fresh))
		return 0;
	b = bpf_map_lookup_elem(&iter_build, &zero);
	if (!b)
		return 0;
	fill(&e, task, KIND_TASK);
	from = build_head(b, &e, task) & 0x1fff;
	if (from > TAIL)
		return 0;
	bpf_probe_read_kernel(&b->data[from], sizeof(e), &e);
	bpf_seq_write(ctx->meta->seq, &b->data[from], (TAIL - from) & 0x1fff);
	return 0;
}

/* Sockets already held; user space knows which families it asked for. */
SEC("iter/task_file")
int observe_file(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct event e = {};
	struct socket *sock;
	struct sock *sk;

	if (!task || !file || !in_scope(task))
		return 0;
	sock = bpf_sock_from_file(file);
	if (!sock)
		return 0;
	sk = BPF_CORE_READ(sock, sk);
	if (!sk)
		return 0;
	fill(&e, task, KIND_HELD);
	e.family = BPF_CORE_READ(sk, __sk_common.skc_family);
	e.type = BPF_CORE_READ(sk, sk_type);
	e.protocol = BPF_CORE_READ(sk, sk_protocol);
	bpf_seq_write(ctx->meta->seq, &e, sizeof(e));
	return 0;
}

#endif
