//go:build ignore

// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * The embedded sensor, one object. An audit policy loads the programs of
 * observe.h, socket.h, use.h and iterate.h, an enforcing policy those of
 * enforce.h; policy.h is what both share. Each needs Linux 5.17 (bpf_loop) with
 * BTF and cgroup v2; each program says on which kernels it loads.
 */
#include "socket.h"
#include "use.h"
#include "iterate.h"
#include "enforce.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Types that bpf2go gives to Go: it finds only those that some variable has. */
const struct event *const go_event __attribute__((unused));
const struct socket_event *const go_socket_event __attribute__((unused));
const enum kind *const go_kind __attribute__((unused));
const enum flag *const go_flag __attribute__((unused));
const enum mode *const go_mode __attribute__((unused));
const enum walk_end *const go_walk_end __attribute__((unused));
const enum match_op *const go_match_op __attribute__((unused));
const struct use_event *const go_use_event __attribute__((unused));
