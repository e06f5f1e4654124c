/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * What the observing programs tell, and how: the records, the ring that carries
 * them, what of it was lost, and what was told of each process already.
 */
#ifndef PROFILE_EVENT_H
#define PROFILE_EVENT_H

#include "policy.h"

enum kind {
	KIND_EXEC = 1,
	KIND_FORK = 2,
	KIND_EXIT = 3,
	KIND_SOCKET = 4,
	KIND_TASK = 5,	  /* from the iterator: it ran before */
	KIND_HELD = 6,	  /* from the iterator: a socket already open */
	KIND_LEFT = 7,	  /* the process has left the cgroup of the policy */
	KIND_CONNECT = 8, /* a socket is used: name holds struct address */
	KIND_BIND = 9,
	KIND_SEND = 10,
	/* A socket is used that the image did not open: the address is the peer's. */
	KIND_HANDED_SEND = 11,
	KIND_HANDED_RECV = 12,
	KINDS = 13,
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

/*
 * The reader looks into the ring every few milliseconds by itself: to wake it
 * costs more than the event does. It is woken each time that another sixteenth
 * of the ring was filled, so that none of it is lost while it sleeps.
 */
static __always_inline __u64 wake(__u64 len)
{
	__u64 at = bpf_ringbuf_query(&events, BPF_RB_PROD_POS);
	__u64 step = bpf_ringbuf_query(&events, BPF_RB_RING_SIZE) >> 4;

	len = (len + 15) & ~7ULL; /* as it is in the ring, with its header */
	return (at ^ (at + len)) & ~(step - 1) ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
}

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
#define TOLD_USES 8

struct told {
	__u64 sockets;	       /* bits by family and type */
	__u64 known;	       /* the same; of the image, whatever the lists and its cgroup */
	__u64 ways;	       /* bits by what a socket was used for, family and type */
	__u32 uses[TOLD_USES]; /* hashes of the uses that were told whole */
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
	bool ok = !bpf_ringbuf_output(&events, (void *)e, sizeof(*e), wake(sizeof(*e)));

	count(e->kind, ok);
	return ok;
}

#endif
