#!/bin/sh
# Process 1 of the machine of run.sh: makes what a booted system has, runs the
# tests that /vm/tests lists, and switches the machine off. The first serial
# port is the console, the second takes what go test -json would print.
export PATH=/usr/sbin:/usr/bin HOME=/root TMPDIR=/tmp LC_ALL=C.UTF-8
mount -t proc -o nosuid,nodev,noexec proc /proc
mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
mount -t devtmpfs -o nosuid devtmpfs /dev
exec </dev/ttyS0 >/dev/ttyS0 2>&1
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o nosuid,nodev tmpfs /dev/shm
mount -t tmpfs -o nosuid,nodev tmpfs /run
mount -t tmpfs -o nosuid,nodev tmpfs /tmp
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 /sys/fs/cgroup
ln -s /proc/self/fd /dev/fd
# Started at boot, the second processor and the first wait for each other for
# ever in 6.1, where the clock counts instructions.
echo 1 >/sys/devices/system/cpu/cpu1/online
hostname vm
ip link set lo up
. /vm/env
[ "$BPFFS" = no ] || mount -t bpf -o nosuid,nodev,noexec bpf /sys/fs/bpf
stty -F /dev/ttyS1 raw

if [ -n "$PROFILE_E2E_AGENT" ]; then
	/vm/tetragon/tetragon --bpf-lib /vm/tetragon/bpf --server-address "$PROFILE_E2E_AGENT" >/run/tetragon.log 2>&1 &
	one=-test.parallel=1 timeout=3h # it watches the whole machine, and the clock jumps
fi

echo "e2e-vm: up after $(cut -d ' ' -f 1 /proc/uptime) s, Linux $(uname -r)"
while read -r dir pattern; do
	cd "/profile/$dir" || continue
	/vm/test2json -t -p "profile/$dir on $(uname -r)" \
		./test -test.v=test2json $one -test.timeout=${timeout-30m} -test.run="$pattern" </dev/null >/dev/ttyS1
done </vm/tests
echo "e2e-vm: the tests have ended"
busybox poweroff -f
