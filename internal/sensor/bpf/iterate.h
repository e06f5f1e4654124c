/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * The iterators, for what was there before an audit policy: processes, and the
 * sockets that they hold. Loaded and run on 6.18, 6.12 and 6.1.
 */
#ifndef PROFILE_ITERATE_H
#define PROFILE_ITERATE_H

#include "observe.h"

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
