/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * The programs of an audit policy that see what sockets are used for: connect,
 * bind, and sending to an address. They see sockets that the process did not
 * open itself too, and see_handed those with which it does nothing else than
 * send and receive. They decide nothing. The cgroup programs load on 6.18; the
 * others on 6.12 and 6.1 (see socket.h).
 */
#ifndef PROFILE_USE_H
#define PROFILE_USE_H

#include "socket.h"
#include <bpf/bpf_endian.h>

struct address {
	__u32 ip[4]; /* of the network's byte order; the first of AF_INET */
	__u16 port;  /* of the host's byte order */
	__u16 pad;
};

struct use_event {
	struct socket_event socket;
	struct address address;
};

/* Without branches, as what follows: each would double the verifier's work. */
static __always_inline bool is_loopback(__u32 family, const struct address *a)
{
	bool four = (a->ip[0] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
	bool six = !(a->ip[0] | a->ip[1] | a->ip[2] | (a->ip[3] ^ bpf_htonl(1)));
	bool mapped = !(a->ip[0] | a->ip[1] | (a->ip[2] ^ bpf_htonl(0xffff))) &
		      ((a->ip[3] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000));

	return ((family == AF_INET) & four) | ((family != AF_INET) & (six | mapped));
}

/* FNV-1a over what tells one use from another; never 0, which is a free place. */
static __always_inline __u32 hash_use(__u16 kind, __u32 family, __u32 type, const struct address *a)
{
	__u32 h = 2166136261;

	h = (h ^ (kind << 16 | family << 8 | type)) * 16777619;
	h = (h ^ a->port) * 16777619;
	h = (h ^ a->ip[0]) * 16777619;
	h = (h ^ a->ip[1]) * 16777619;
	h = (h ^ a->ip[2]) * 16777619;
	h = (h ^ a->ip[3]) * 16777619;
	return h | 1;
}

/*
 * Whether a use is to be told: the first few whole, and then each way once. A
 * function of its own for the verifier, which looks at it once.
 */
__noinline int is_new_use(struct told *t, __u32 hash, __u64 way)
{
	__u32 i;

	if (!t)
		return 1;
	for (i = 0; i < TOLD_USES; i++) {
		if (t->uses[i] == hash)
			return 0;
		if (!t->uses[i]) {
			t->uses[i] = hash;
			t->ways |= way;
			return 1;
		}
	}
	if (t->ways & way)
		return 0;
	t->ways |= way;
	return 1;
}

static __always_inline void see_use(
	__u16 kind, __u32 family, __u32 type, __u32 protocol, const struct address *a)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct told *t = told_of(task);
	struct use_event *out;
	__u64 way;

	way = 1ULL << ((kind - KIND_CONNECT) * 20 + (family == AF_INET6) * 10 +
		       is_loopback(family, a) * 5 + (type & 7) % 5);
	if (t && !is_new_use(t, hash_use(kind, family, type, a), way))
		return;
	out = bpf_ringbuf_reserve(&events, sizeof(*out), 0);
	if (!out) {
		count(kind, false);
		return;
	}
	fill_socket(&out->socket, task, kind);
	out->socket.head.family = family;
	out->socket.head.type = type;
	out->socket.head.protocol = protocol;
	out->address = *a;
	bpf_ringbuf_submit(out, wake(sizeof(*out)));
	count(kind, true);
}

/* A socket of another family has an address of AF_INET in the form of AF_INET6. */
static __always_inline void map_four(struct address *a)
{
	a->ip[3] = a->ip[0];
	a->ip[2] = bpf_htonl(0xffff);
	a->ip[0] = 0;
}

/*
 * The cgroup of these programs is that in which a socket was opened. So they are
 * attached to the root, and ask whether it is for the policy's processes that a
 * socket is used.
 */
static __always_inline int see_address4(__u16 kind, struct bpf_sock_addr *ctx)
{
	__u32 family = ctx->sk ? ctx->sk->family : AF_INET;
	struct address a = {};

	a.ip[0] = ctx->user_ip4;
	if (family != AF_INET)
		map_four(&a);
	a.port = __builtin_bswap16(ctx->user_port);
	if (wants(family) && in_scope(bpf_get_current_task_btf()))
		see_use(kind, family, ctx->type, ctx->protocol, &a);
	return 1;
}

static __always_inline int see_address6(__u16 kind, struct bpf_sock_addr *ctx)
{
	struct address a = {};

	a.ip[0] = ctx->user_ip6[0];
	a.ip[1] = ctx->user_ip6[1];
	a.ip[2] = ctx->user_ip6[2];
	a.ip[3] = ctx->user_ip6[3];
	a.port = __builtin_bswap16(ctx->user_port);
	if (wants(AF_INET6) && in_scope(bpf_get_current_task_btf()))
		see_use(kind, AF_INET6, ctx->type, ctx->protocol, &a);
	return 1;
}

SEC("cgroup/connect4")
int observe_connect4(struct bpf_sock_addr *ctx)
{
	return see_address4(KIND_CONNECT, ctx);
}

SEC("cgroup/connect6")
int observe_connect6(struct bpf_sock_addr *ctx)
{
	return see_address6(KIND_CONNECT, ctx);
}

SEC("cgroup/bind4")
int observe_bind4(struct bpf_sock_addr *ctx)
{
	return see_address4(KIND_BIND, ctx);
}

SEC("cgroup/bind6")
int observe_bind6(struct bpf_sock_addr *ctx)
{
	return see_address6(KIND_BIND, ctx);
}

SEC("cgroup/sendmsg4")
int observe_sendmsg4(struct bpf_sock_addr *ctx)
{
	return see_address4(KIND_SEND, ctx);
}

SEC("cgroup/sendmsg6")
int observe_sendmsg6(struct bpf_sock_addr *ctx)
{
	return see_address6(KIND_SEND, ctx);
}

/* An address that the kernel has copied from the process already. */
static __always_inline void see_sockaddr(__u16 kind, struct socket *sock, void *address)
{
	struct sock *sk = BPF_CORE_READ(sock, sk);
	struct address a = {};
	__u16 form = 0, port = 0;
	__u32 family;

	if (!sk || !address || !in_scope(bpf_get_current_task_btf()))
		return;
	family = BPF_CORE_READ(sk, __sk_common.skc_family);
	bpf_probe_read_kernel(&form, sizeof(form), address);
	if ((form != AF_INET && form != AF_INET6) || !wants(family))
		return;
	/* struct sockaddr_in and sockaddr_in6 of the user's interface */
	bpf_probe_read_kernel(&port, sizeof(port), address + 2);
	if (form == AF_INET)
		bpf_probe_read_kernel(a.ip, 4, address + 4);
	else
		bpf_probe_read_kernel(a.ip, 16, address + 8);
	if (form == AF_INET && family != AF_INET)
		map_four(&a);
	a.port = __builtin_bswap16(port);
	see_use(kind, family, BPF_CORE_READ(sk, sk_type), BPF_CORE_READ(sk, sk_protocol), &a);
}

SEC("fmod_ret/security_socket_connect")
int BPF_PROG(observe_connect, struct socket *sock, struct sockaddr *address, int len, int ret)
{
	see_sockaddr(KIND_CONNECT, sock, address);
	return ret;
}

SEC("fmod_ret/security_socket_bind")
int BPF_PROG(observe_bind, struct socket *sock, struct sockaddr *address, int len, int ret)
{
	see_sockaddr(KIND_BIND, sock, address);
	return ret;
}

/* The other end of a socket, zeroes where it is not connected. */
static __always_inline void read_peer(struct address *a, struct sock *sk, __u32 family)
{
	if (family == AF_INET)
		a->ip[0] = BPF_CORE_READ(sk, __sk_common.skc_daddr);
	else if (family == AF_INET6 && bpf_core_field_exists(sk->__sk_common.skc_v6_daddr))
		bpf_core_read(a->ip, sizeof(a->ip), &sk->__sk_common.skc_v6_daddr);
	else
		return;
	a->port = __builtin_bswap16(BPF_CORE_READ(sk, __sk_common.skc_dport));
}

/* Tells that a socket is used which another has opened. */
__noinline int tell_handed(
	__u16 kind, __u32 family, __u32 type, __u32 protocol, const struct address *peer)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct use_event *out;

	out = bpf_ringbuf_reserve(&events, sizeof(*out), 0);
	count(kind, out);
	if (!out)
		return 0;
	fill_socket(&out->socket, task, kind);
	out->socket.head.family = family;
	out->socket.head.type = type;
	out->socket.head.protocol = protocol;
	if (peer)
		out->address = *peer;
	bpf_ringbuf_submit(out, wake(sizeof(*out)));
	return 1;
}

/*
 * Something is sent or received on a socket. If the image has opened none of the
 * kind, it was handed to it: inherited, passed over AF_UNIX, or taken from
 * another process. Told once; this runs at every send and receive. Where only
 * the check of CAP_NET_RAW is seen, it stands for AF_PACKET and AF_XDP. What the
 * kernel opened for itself, a process can use without knowing (NFS).
 */
static __always_inline void see_handed(__u16 kind, struct sock *sk, __u32 family, __u32 type)
{
	__u64 bits = socket_bit(family, type);
	struct address peer = {};
	struct task_struct *task;
	struct told *t;

	if (family == AF_PACKET || family == AF_XDP)
		bits |= socket_bit(AF_PACKET, 0);
	task = bpf_get_current_task_btf();
	t = bpf_task_storage_get(&told, task->group_leader, 0, 0);
	if (t && t->known & bits)
		return;
	if (!in_scope(task) || !BPF_CORE_READ(task, mm) ||
		BPF_CORE_READ_BITFIELD_PROBED(sk, sk_kern_sock))
		return;
	t = told_of(task);
	read_peer(&peer, sk, family);
	if (tell_handed(kind, family, type, BPF_CORE_READ(sk, sk_protocol), &peer) && t)
		__sync_fetch_and_or(&t->known, socket_bit(family, type));
}

/* In 6.18, not in 6.1; not what tcp_splice_read and TCP_ZEROCOPY_RECEIVE take. */
SEC("tp_btf/sock_send_length")
int BPF_PROG(observe_sent, struct sock *sk, int sent, int flags)
{
	__u32 family = sk->__sk_common.skc_family;

	if (wants(family))
		see_handed(KIND_HANDED_SEND, sk, family, sk->sk_type);
	return 0;
}

SEC("tp_btf/sock_recv_length")
int BPF_PROG(observe_received, struct sock *sk, int received, int flags)
{
	__u32 family = sk->__sk_common.skc_family;

	if (wants(family))
		see_handed(KIND_HANDED_RECV, sk, family, sk->sk_type);
	return 0;
}

/* The same where there is no such tracepoint. */
static __always_inline void see_message(__u16 kind, struct socket *sock)
{
	struct sock *sk = BPF_CORE_READ(sock, sk);
	__u32 family = sk ? BPF_CORE_READ(sk, __sk_common.skc_family) : 0;

	if (wants(family))
		see_handed(kind, sk, family, BPF_CORE_READ(sk, sk_type));
}

/* What names no address goes where connect has said. */
SEC("fmod_ret/security_socket_sendmsg")
int BPF_PROG(observe_send, struct socket *sock, struct msghdr *msg, int size, int ret)
{
	void *address = BPF_CORE_READ(msg, msg_name);

	if (address)
		see_sockaddr(KIND_SEND, sock, address);
	see_message(KIND_HANDED_SEND, sock);
	return ret;
}

SEC("fmod_ret/security_socket_recvmsg")
int BPF_PROG(observe_receive, struct socket *sock, struct msghdr *msg, int size, int flags, int ret)
{
	see_message(KIND_HANDED_RECV, sock);
	return ret;
}

#endif
