#!/bin/bash
# Runs e2e, and the tests beside it that load programs, on another kernel:
# Debian's cloud kernel in an emulated machine with two processors.
#   run.sh KERNEL [PATTERN | @FILE]
# KERNEL is 6.1, 6.12 or what else apt offers here. PATTERN is as for go test
# -run; FILE has lines with a directory and the pattern for its tests, and only
# those run: quick.txt is one.
# BPFFS=no leaves /sys/fs/bpf without a bpffs. Prints on stdout what go test
# -json would, with the kernel's name behind each package's. Exits 1 if the
# machine did not come to the end of its tests; whether they passed is for
# internal/testsum to say. What is installed here and cached: see image.sh.
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin:/usr/local/go/bin
kernel=$1 pattern=${2-}
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/profile-vm
limit=90m
# The directories of the tests that run there, and what of them.
dirs=(e2e internal/sensor internal/canary internal/cgroup)
declare -A patterns
if [[ $pattern = @* ]]; then
	dirs=()
	while read -r dir of_dir; do
		dirs+=("$dir") patterns[$dir]=$of_dir
	done < <(grep -v '^#' "${pattern#@}")
else
	for dir in "${dirs[@]}"; do patterns[$dir]=$pattern; done
fi

say() { echo "e2e-vm: $*" >&2; }

[ "$(id -u)" = 0 ] || { say "needs root, to build the programs of e2e and unpack packages"; exit 1; }
[ "$(dpkg --print-architecture)" = amd64 ] || { say "emulates amd64 on amd64 only"; exit 1; }
if ! command -v qemu-system-x86_64 >/dev/null || ! command -v cpio >/dev/null; then
	export DEBIAN_FRONTEND=noninteractive
	{
		apt-get -qq update
		apt-get -qq -y install --no-install-recommends qemu-system-x86 cpio
	} >&2
fi
mkdir -p "$cache"
exec 9>"$cache/lock"
flock -n 9 || { say "another machine is running, waiting for it"; flock 9; }

image=$("$here/image.sh" "$kernel")
name=$(cat "$image/name")

work=$(mktemp -d)
machine=''
# Called by the trap, on every way out.
# shellcheck disable=SC2317
cleanup() {
	if [ -n "$machine" ]; then
		kill "$machine" 2>/dev/null || true
		wait "$machine" || true
	fi
	rm -rf "$work"
}
trap cleanup EXIT
vm=$work/root/vm tree=$work/root/profile
mkdir -p "$vm" "$work/built"
cd "$root"
export CGO_ENABLED=0
go build -o "$vm/test2json" cmd/test2json
for dir in "${dirs[@]}"; do
	mkdir -p "$tree/$dir"
	go test -c -o "$tree/$dir/test" "./$dir"
	[ ! -d "$dir/testdata" ] || cp -r "$dir/testdata" "$tree/$dir/"
done
cp -r examples "$tree/"
[ ! -e "$tree/e2e/test" ] ||
	(cd e2e && PROFILE_E2E_BUILT=$work/built "$tree/e2e/test" -test.list '^$' >&2)
mv "$work/built" "$vm/built"

cp "$here/init.sh" "$work/root/init"
{
	echo "export PROFILE_E2E_BUILT=/vm/built CI=${CI-}"
	echo "BPFFS=${BPFFS-yes}"
} >"$vm/env"
for dir in "${dirs[@]}"; do
	echo "$dir ${patterns[$dir]}"
done >"$vm/tests"
{
	cat "$image/initramfs.cpio"
	cd "$work/root"
	find . -print0 | cpio --null --create --format=newc --owner=0:0 --quiet
} >"$work/initramfs"
rm -rf "$work/root"

say "booting Linux $name"
# Its clock counts instructions, one a nanosecond, and jumps where all sleep: no
# limit in a test or in profile depends on how fast or how busy this machine is.
nice timeout -k 10 "$limit" qemu-system-x86_64 \
	-accel tcg,thread=single -icount shift=0,sleep=off -rtc clock=vm -cpu max -smp 2 -m 3072 \
	-nodefaults -no-user-config -display none -no-reboot \
	-kernel "$image/vmlinuz" -initrd "$work/initramfs" \
	-append 'console=ttyS0 loglevel=5 panic=-1 oops=panic nowatchdog rcupdate.rcu_cpu_stall_suppress=1' \
	-serial "file:$work/console" \
	-chardev "stdio,id=results,signal=off,logfile=$work/results" -serial chardev:results </dev/null &
machine=$!
status=0
wait $machine || status=$?

sed -n 's/\r$//; s/^e2e-vm: up/&/p' "$work/console" >&2
if grep -aq '^e2e-vm: the tests have ended' "$work/console"; then
	exit
fi
why="it switched itself off"
[ $status != 124 ] || why="it was still running after $limit"
! grep -aq 'Kernel panic' "$work/console" || why="its kernel panicked"
say "the machine did not come to the end of its tests: $why. The end of its console:"
tail -n 60 "$work/console" | tr -d '\r' >&2
# For testsum, the packages that did not end have failed.
echo
for dir in "${dirs[@]}"; do
	package="profile/$dir on $name"
	grep -qE '"Action":"(pass|fail|skip)","Package":"'"$package"'","Elapsed"' "$work/results" ||
		printf '{"Action":"output","Package":"%s","Output":"the machine ended first: %s\\n"}\n{"Action":"fail","Package":"%s"}\n' \
			"$package" "$why" "$package"
done
exit 1
