/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * The path of a file as the kernel prints it for the current process, walked
 * by hand: bpf_d_path is refused in tracepoints and cgroup programs. bpf_loop
 * keeps it at one verified step whatever the bound (FACTS 26); it needs 5.17.
 */
#ifndef PROFILE_PATH_H
#define PROFILE_PATH_H

#include "kernel.h"

/* Why a walk ended. Each but the first two leaves a path that only looks whole. */
enum walk_end {
	WALK_ROOT = 1,	   /* the root directory of the process */
	WALK_GLOBAL = 2,   /* the root of its mount namespace */
	WALK_DETACHED = 3, /* a mount that is nowhere mounted (any more) */
	WALK_ESCAPED = 4,  /* a directory moved out of its bind mount */
	WALK_TOO_LONG = 5, /* the buffer is full */
	WALK_NO_NAME = 6,  /* the file has no path at all: a memfd */
};

/* A walk fills its buffer from the end: text is at [pos, size of the zone). */
#define LONG_ZONE 4096
#define SHORT_ZONE 256
#define NAME_MAX 255
#define WALK_STEPS 4200
#define SHORT_STEPS 512

struct walk {
	struct dentry *dentry;
	struct vfsmount *mnt;
	struct dentry *root_dentry;
	struct vfsmount *root_mnt;
	char *buf; /* zone + NAME_MAX + 1 bytes */
	__u32 pos;
	__u32 end;
};

static __always_inline long walk_step(struct walk *w, __u32 mask)
{
	struct dentry *dentry = w->dentry, *parent;
	struct vfsmount *mnt = w->mnt;
	const unsigned char *name;
	struct mount *m, *up;
	__u32 len;

	if (dentry == w->root_dentry && mnt == w->root_mnt) {
		w->end = WALK_ROOT;
		return 1;
	}
	if (dentry == BPF_CORE_READ(mnt, mnt_root)) {
		m = (void *)mnt - bpf_core_field_offset(struct mount, mnt);
		up = BPF_CORE_READ(m, mnt_parent);
		if (up == m) {
			w->end = BPF_CORE_READ(m, mnt_ns) ? WALK_GLOBAL : WALK_DETACHED;
			return 1;
		}
		w->dentry = BPF_CORE_READ(m, mnt_mountpoint);
		w->mnt = (void *)up + bpf_core_field_offset(struct mount, mnt);
		return 0;
	}
	parent = BPF_CORE_READ(dentry, d_parent);
	if (parent == dentry) {
		w->end = WALK_ESCAPED;
		return 1;
	}
	len = BPF_CORE_READ(dentry, d_name.len);
	if (len > NAME_MAX || len + 1 > w->pos) {
		w->end = WALK_TOO_LONG;
		return 1;
	}
	name = BPF_CORE_READ(dentry, d_name.name);
	w->pos -= len;
	bpf_probe_read_kernel(&w->buf[w->pos & mask], len & NAME_MAX, name);
	w->pos--;
	w->buf[w->pos & mask] = '/';
	w->dentry = parent;
	return 0;
}

static long walk_long(__u64 i, void *ctx)
{
	return walk_step(ctx, LONG_ZONE - 1);
}

static long walk_short(__u64 i, void *ctx)
{
	return walk_step(ctx, SHORT_ZONE - 1);
}

static __always_inline void walk_begin(
	struct walk *w, const struct path *p, struct task_struct *task, char *buf, __u32 zone)
{
	w->dentry = BPF_CORE_READ(p, dentry);
	w->mnt = BPF_CORE_READ(p, mnt);
	w->root_dentry = BPF_CORE_READ(task, fs, root.dentry);
	w->root_mnt = BPF_CORE_READ(task, fs, root.mnt);
	w->buf = buf;
	w->pos = zone;
	w->end = 0;
}

/* A step too few is a path too long; the root directory itself is "/". */
static __always_inline void walk_finish(struct walk *w, __u32 zone)
{
	if (!w->end)
		w->end = WALK_TOO_LONG;
	if (w->pos == zone && w->end != WALK_TOO_LONG) {
		w->pos--;
		w->buf[w->pos & (zone - 1)] = '/';
	}
}

static __always_inline bool has_no_name(struct dentry *dentry)
{
	const struct dentry_operations *op = BPF_CORE_READ(dentry, d_op);

	return op && BPF_CORE_READ(op, d_dname);
}

static __always_inline bool is_unhashed(struct dentry *dentry)
{
	return !BPF_CORE_READ(dentry, d_hash.pprev);
}

static __always_inline struct file *exe_of(struct task_struct *task)
{
	return BPF_CORE_READ(task, mm, exe_file);
}

static const char deleted[] = " (deleted)";
#define DELETED_LEN (sizeof(deleted) - 1)

/*
 * The executable of a task into a zone of LONG_ZONE. At exec, one that had
 * been unlinked before is named so, as the kernel's own text does; later the
 * name at exec is what counts, and mark is false.
 */
static __always_inline void walk_exe_long(
	struct walk *w, struct file *exe, struct task_struct *task, char *buf, bool mark)
{
	walk_begin(w, &exe->f_path, task, buf, LONG_ZONE);
	if (has_no_name(w->dentry)) {
		w->end = WALK_NO_NAME;
		return;
	}
	if (mark && is_unhashed(w->dentry)) {
		w->pos -= DELETED_LEN;
		__builtin_memcpy(&buf[LONG_ZONE - DELETED_LEN], deleted, DELETED_LEN);
	}
	bpf_loop(WALK_STEPS, walk_long, w, 0);
	walk_finish(w, LONG_ZONE);
}

/* The same into a zone of SHORT_ZONE, which holds every path that a policy can name. */
static __always_inline void walk_exe_short(
	struct walk *w, struct file *exe, struct task_struct *task, char *buf, bool mark)
{
	walk_begin(w, &exe->f_path, task, buf, SHORT_ZONE);
	if (has_no_name(w->dentry)) {
		w->end = WALK_NO_NAME;
		return;
	}
	if (mark && is_unhashed(w->dentry)) {
		w->pos -= DELETED_LEN;
		__builtin_memcpy(&buf[SHORT_ZONE - DELETED_LEN], deleted, DELETED_LEN);
	}
	bpf_loop(SHORT_STEPS, walk_short, w, 0);
	walk_finish(w, SHORT_ZONE);
}

/* Whether the walk gave a path that a policy can name. */
static __always_inline bool is_nameable(const struct walk *w)
{
	return w->end == WALK_ROOT || w->end == WALK_GLOBAL;
}

#endif
