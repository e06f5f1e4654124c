// SPDX-License-Identifier: Apache-2.0
// What the actor does with sockets, its own and those that it is handed.
#include <arpa/inet.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/un.h>

static int family_of(const char *name)
{
	if (!strcmp(name, "inet6"))
		return AF_INET6;
	if (!strcmp(name, "unix"))
		return AF_UNIX;
	if (!strcmp(name, "netlink"))
		return AF_NETLINK;
	if (!strcmp(name, "packet"))
		return AF_PACKET;
	if (!strcmp(name, "vsock"))
		return AF_VSOCK;
	if (!strcmp(name, "smc"))
		return AF_SMC;
	return AF_INET;
}

static int type_of(const char *name)
{
	if (!strcmp(name, "dgram"))
		return SOCK_DGRAM;
	if (!strcmp(name, "raw"))
		return SOCK_RAW;
	return SOCK_STREAM;
}

/* raw sockets of the internet families have no protocol of their own */
static int protocol_of(const char *spec)
{
	if (!strcmp(spec, "inet/raw"))
		return IPPROTO_ICMP;
	if (!strcmp(spec, "inet6/raw"))
		return IPPROTO_ICMPV6;
	return 0;
}

/* the socket that what follows is about */
static int held = -1;

/* family/type, such as inet/dgram; the socket stays open */
static void open_socket(const char *spec)
{
	char family[32];
	const char *type = strchr(spec, '/');

	if (!type || type - spec >= (long)sizeof(family))
		exit(2);
	memcpy(family, spec, type - spec);
	family[type - spec] = 0;
	held = socket(family_of(family), type_of(type + 1), protocol_of(spec));
	if (held < 0)
		fail("socket");
}

/* sends one byte to a port of 127.0.0.1 */
static void send_to(const char *port, int type)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
	int fd = socket(AF_INET, type, 0);

	if (fd < 0)
		fail("socket");
	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0)
		fail("connect");
	if (write(fd, "x", 1) != 1)
		fail("write");
	close(fd);
}

/* an address of the family of the socket held */
static socklen_t address_of(struct sockaddr_storage *to, const char *ip, const char *port)
{
	struct sockaddr_in *four = (void *)to;
	struct sockaddr_in6 *six = (void *)to;

	memset(to, 0, sizeof(*to));
	if (strchr(ip, ':')) {
		six->sin6_family = AF_INET6;
		six->sin6_port = htons(atoi(port));
		if (inet_pton(AF_INET6, ip, &six->sin6_addr) != 1)
			exit(2);
		return sizeof(*six);
	}
	four->sin_family = AF_INET;
	four->sin_port = htons(atoi(port));
	if (inet_pton(AF_INET, ip, &four->sin_addr) != 1)
		exit(2);
	return sizeof(*four);
}

/* whatever comes of it, and without waiting for that */
static void try_connect(const char *ip, const char *port)
{
	struct sockaddr_storage to;
	socklen_t len = address_of(&to, ip, port);

	fcntl(held, F_SETFL, O_NONBLOCK);
	(void)!connect(held, (struct sockaddr *)&to, len);
}

static void try_sendto(const char *ip, const char *port)
{
	struct sockaddr_storage to;
	socklen_t len = address_of(&to, ip, port);

	(void)!sendto(held, "x", 1, 0, (struct sockaddr *)&to, len);
}

static void bind_to(const char *ip, const char *port)
{
	struct sockaddr_storage to;
	socklen_t len = address_of(&to, ip, port);

	if (bind(held, (struct sockaddr *)&to, len))
		fail("bind");
}

static void listen_on(void)
{
	if (listen(held, 5))
		fail("listen");
}

static void accept_one(void)
{
	held = accept(held, NULL, NULL);
	if (held < 0)
		fail("accept");
}

static void send_byte(void)
{
	if (send(held, "x", 1, MSG_NOSIGNAL) != 1)
		fail("send");
}

static void receive_byte(void)
{
	char byte;

	if (recv(held, &byte, 1, 0) != 1)
		fail("recv");
}

/* a child connects from a port, of its choice if that is 0, to the address of
 * the socket held, sends a byte, and waits for as long as the other end is open */
static void dial(const char *port)
{
	struct sockaddr_storage to, from = {};
	socklen_t len = sizeof(to);
	int type, fd;
	char byte;

	if (getsockname(held, (struct sockaddr *)&to, &len))
		fail("getsockname");
	if (fork())
		return;
	getsockopt(held, SOL_SOCKET, SO_TYPE, &type, &(socklen_t){sizeof(type)});
	fd = socket(to.ss_family, type, 0);
	from = to;
	((struct sockaddr_in *)&from)->sin_port = htons(atoi(port));
	if (fd < 0 || bind(fd, (struct sockaddr *)&from, len))
		fail("bind");
	close(held);
	if (connect(fd, (struct sockaddr *)&to, len) || send(fd, "x", 1, 0) != 1)
		fail("dial");
	while (type == SOCK_STREAM && recv(fd, &byte, 1, 0) > 0)
		;
	_exit(0);
}

/* where a handed socket arrives */
#define POST 9

/* starts a program, with the rest for its arguments, and passes it the socket
 * held over AF_UNIX */
static int give(char **argv)
{
	union {
		char room[CMSG_SPACE(sizeof(int))];
		struct cmsghdr head;
	} control = {};
	struct iovec one = {"x", 1};
	struct msghdr msg = {.msg_iov = &one,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control)};
	int pair[2], status;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		fail("socketpair");
	fcntl(held, F_SETFD, FD_CLOEXEC);
	pid = fork();
	if (!pid) {
		dup2(pair[1], POST);
		execv(argv[0], argv);
		fail(argv[0]);
	}
	control.head.cmsg_level = SOL_SOCKET;
	control.head.cmsg_type = SCM_RIGHTS;
	control.head.cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(&control.head), &held, sizeof(int));
	if (pid < 0 || sendmsg(pair[0], &msg, 0) != 1 || waitpid(pid, &status, 0) < 0)
		fail("give");
	return status ? 5 : 0;
}

static void take(void)
{
	union {
		char room[CMSG_SPACE(sizeof(int))];
		struct cmsghdr head;
	} control = {};
	char byte;
	struct iovec one = {&byte, 1};
	struct msghdr msg = {.msg_iov = &one,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control)};

	if (recvmsg(POST, &msg, 0) != 1 || control.head.cmsg_type != SCM_RIGHTS)
		fail("take");
	memcpy(&held, CMSG_DATA(&control.head), sizeof(int));
}

/* executes a program, with the rest for its arguments, as systemd does one that
 * a socket activates: see sd_listen_fds(3) */
static void activate(char **argv)
{
	char pid[16];

	snprintf(pid, sizeof(pid), "%d", getpid());
	setenv("LISTEN_PID", pid, 1);
	setenv("LISTEN_FDS", "1", 1);
	if (dup2(held, 3) != 3)
		fail("dup2");
	execv(argv[0], argv);
	fail(argv[0]);
}

static void activated(void)
{
	const char *pid = getenv("LISTEN_PID"), *n = getenv("LISTEN_FDS");

	if (!pid || atoi(pid) != getpid() || !n || strcmp(n, "1"))
		fail("LISTEN_FDS");
	held = 3;
}

/* a network of its own, in which the one interface has that address too */
static void new_network(const char *ip)
{
	struct ifreq req = {.ifr_name = "lo"};
	struct sockaddr_storage to;
	int fd;

	if (unshare(CLONE_NEWNET))
		fail("unshare");
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	req.ifr_flags = IFF_UP;
	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &req))
		fail("lo");
	strcpy(req.ifr_name, "lo:1");
	address_of(&to, ip, "0");
	memcpy(&req.ifr_addr, &to, sizeof(req.ifr_addr));
	if (ioctl(fd, SIOCSIFADDR, &req))
		fail(ip);
	close(fd);
}

/* an operation on sockets; returns how many words it takes, 0 if it is none */
static int perform_net(const char *op, const char *arg, const char *more)
{
	if (!strcmp(op, "socket"))
		return open_socket(arg), 2;
	if (!strcmp(op, "tcp"))
		return send_to(arg, SOCK_STREAM), 2;
	if (!strcmp(op, "udp"))
		return send_to(arg, SOCK_DGRAM), 2;
	if (!strcmp(op, "hold"))
		return held = atoi(arg), 2;
	if (!strcmp(op, "as"))
		return held = dup2(held, atoi(arg)), 2;
	if (!strcmp(op, "dial"))
		return dial(arg), 2;
	if (!strcmp(op, "newnet"))
		return new_network(arg), 2;
	if (!strcmp(op, "connect"))
		return try_connect(arg, more), 3;
	if (!strcmp(op, "sendto"))
		return try_sendto(arg, more), 3;
	if (!strcmp(op, "bind"))
		return bind_to(arg, more), 3;
	if (!strcmp(op, "listen"))
		return listen_on(), 1;
	if (!strcmp(op, "accept"))
		return accept_one(), 1;
	if (!strcmp(op, "send"))
		return send_byte(), 1;
	if (!strcmp(op, "recv"))
		return receive_byte(), 1;
	if (!strcmp(op, "take"))
		return take(), 1;
	if (!strcmp(op, "activated"))
		return activated(), 1;
	return 0;
}
