/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * The programs of an audit policy that see what sockets are used for: connect,
 * bind, and sending to an address. They see sockets that the process did not
 * open itself too. They decide nothing. The cgroup programs load on 6.18; the
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

	return ((family == AF_INET) & four) | ((family == AF_INET6) & six);
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

static __always_inline int see_address4(__u16 kind, struct bpf_sock_addr *ctx)
{
	struct address a = {};

	a.ip[0] = ctx->user_ip4;
	a.port = __builtin_bswap16(ctx->user_port);
	if (wants(AF_INET))
		see_use(kind, AF_INET, ctx->type, ctx->protocol, &a);
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
	if (wants(AF_INET6))
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
	__u16 family = 0, port = 0;

	if (!sk || !address || !in_scope(bpf_get_current_task_btf()))
		return;
	bpf_probe_read_kernel(&family, sizeof(family), address);
	if ((family != AF_INET && family != AF_INET6) || !wants(family))
		return;
	/* struct sockaddr_in and sockaddr_in6 of the user's interface */
	bpf_probe_read_kernel(&port, sizeof(port), address + 2);
	if (family == AF_INET)
		bpf_probe_read_kernel(a.ip, 4, address + 4);
	else
		bpf_probe_read_kernel(a.ip, 16, address + 8);
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

/* Only what names an address: the rest goes where connect has said. */
SEC("fmod_ret/security_socket_sendmsg")
int BPF_PROG(observe_send, struct socket *sock, struct msghdr *msg, int size, int ret)
{
	void *address = BPF_CORE_READ(msg, msg_name);

	if (address)
		see_sockaddr(KIND_SEND, sock, address);
	return ret;
}

#endif
