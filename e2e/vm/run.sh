#!/bin/bash
# Runs e2e, and the tests beside it that load programs, on another kernel:
# Debian's cloud kernel in an emulated machine with two processors.
#   run.sh KERNEL [PATTERN | @FILE]
# KERNEL is 6.1, 6.12 or what else apt offers here. PATTERN is as for go test
# -run; FILE has lines with a directory and the whole name of a test in it, and
# those run, or it fails: quick.txt is one. With BPFFS=no, /sys/fs/bpf there has
# no bpffs. With PREEMPT=full, the kernel preempts everywhere (or none, or
# voluntary). With TETRAGON_DIR=DIR, which holds tetragon and bpf/*.o of a release,
# that agent is started there and the scripts of e2e run against it.
#
# Prints on stdout what go test -json would, with the kernel's name behind each
# package's. Exits 1 if the machine did not come to the end of its tests;
# whether they passed is for internal/testsum to say. As root; installs the
# emulator if it is missing, and caches the image: see image.sh.
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin:/usr/local/go/bin

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/profile-vm
limit=4h
work='' machine=''

say() { echo "e2e-vm: $*" >&2; }

# Called by the trap, on every way out.
# shellcheck disable=SC2317
cleanup() {
	if [ -n "$machine" ]; then
		kill "$machine" 2>/dev/null || true
		wait "$machine" || true
	fi
	rm -rf "$work"
}

# choose PATTERN | @FILE: dirs are the directories of the tests, patterns what
# of them is to run, and named the tests without which nothing was shown.
choose() {
	local dir test
	declare -gA patterns
	named=()
	if [[ $1 = @* ]]; then
		limit=15m
		while read -r dir test; do
			[ -n "${patterns[$dir]-}" ] || dirs+=("$dir")
			patterns[$dir]+=${patterns[$dir]+|}^${test//\//$\/^}$
			named+=("$dir $test")
		done < <(grep -v '^#' "${1#@}")
		return
	fi
	dirs=(e2e internal/sensor internal/canary internal/cgroup)
	if [ -n "${TETRAGON_DIR-}" ]; then
		dirs=(e2e)
		set -- "${1:-^TestScripts}"
	fi
	for dir in "${dirs[@]}"; do patterns[$dir]=$1; done
}

install_emulator() {
	if command -v qemu-system-x86_64 >/dev/null && command -v cpio >/dev/null; then
		return
	fi
	apt-get -qq update >&2
	DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends qemu-system-x86 cpio >&2
}

# build DIR puts there what is to be in the machine beside its packages: there
# is no compiler.
build() {
	local dir vm=$1/vm tree=$1/profile
	mkdir -p "$vm/built" "$tree"
	cd "$root"
	export CGO_ENABLED=0
	go build -o "$vm/test2json" cmd/test2json
	for dir in "${dirs[@]}"; do
		mkdir -p "$tree/$dir"
		cp -r "$dir/." "$tree/$dir/"
		go test -c -o "$tree/$dir/test" "./$dir"
		echo "$dir ${patterns[$dir]}" >>"$vm/tests"
	done
	cp -r examples "$tree/"
	[ ! -e "$tree/e2e/test" ] ||
		(cd e2e && PROFILE_E2E_BUILT=$vm/built "$tree/e2e/test" -test.list '^$' >&2)
	printf 'export PROFILE_E2E_BUILT=/vm/built CI=%s\nBPFFS=%s\n' "${CI-}" "${BPFFS-yes}" >"$vm/env"
	if [ -n "${TETRAGON_DIR-}" ]; then
		mkdir "$vm/tetragon"
		cp -r "$TETRAGON_DIR/tetragon" "$TETRAGON_DIR/bpf" "$vm/tetragon/"
		echo 'export PROFILE_E2E_AGENT=unix:///run/tetragon.sock PROFILE_E2E_WHOLE_MACHINE=yes' >>"$vm/env"
	fi
	cp "$here/init.sh" "$1/init"
}

# boot runs the machine, in the directory of its image. Its clock counts
# instructions, one a nanosecond, and jumps where all sleep: no limit in a test
# or in profile depends on how fast or how busy this machine is.
boot() {
	# What is slow to emulate and nothing here needs: a sixth of the time.
	# Without cx16: once in many hours its emulation left an address in the flags,
	# and the kernel panicked.
	local cpu=qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+rdrand,+fsgsbase,-cx16
	local spared='mitigations=off init_on_alloc=0 randomize_kstack_offset=off'
	timeout -k 10 "$limit" qemu-system-x86_64 \
		-accel tcg,thread=single -icount shift=0,sleep=off -rtc clock=vm -cpu "$cpu" -smp 2 -m 3072 \
		-nodefaults -no-user-config -display none -no-reboot \
		-kernel vmlinuz -initrd "$work/initramfs" \
		-append "console=ttyS0 loglevel=5 maxcpus=1 panic=-1 oops=panic nowatchdog rcupdate.rcu_cpu_stall_suppress=1 $spared${PREEMPT:+ preempt=$PREEMPT}" \
		-serial "file:$work/console" \
		-chardev "stdio,id=results,signal=off,logfile=$work/results" -serial chardev:results </dev/null &
	machine=$!
	wait $machine
}

# explain NAME STATUS tells how the machine named so ended before its tests did.
# For testsum, the packages that had not ended have failed.
explain() {
	local why="it stopped" dir package
	[ "$2" != 124 ] || why="it was still running after $limit"
	! grep -aq 'Kernel panic' "$work/console" || why="its kernel panicked"
	say "the machine did not come to the end of its tests: $why (qemu exits $2). The end of its console:"
	tail -n 60 "$work/console" | tr -d '\r' >&2
	echo
	for dir in "${dirs[@]}"; do
		package="profile/$dir on $1"
		grep -qE '"Action":"(pass|fail|skip)","Package":"'"$package"'","Elapsed"' "$work/results" ||
			printf '{"Action":"output","Package":"%s","Output":"%s\\n"}\n{"Action":"fail","Package":"%s"}\n' \
				"$package" "the machine did not come to the end of these: $why" "$package"
	done
}

# missing NAME: for testsum, a test that was named and did not run has failed.
missing() {
	local line package found=0
	for line in "${named[@]}"; do
		package="profile/${line% *} on $1"
		grep -qF '"Action":"run","Package":"'"$package"'","Test":"'"${line#* }"'"' "$work/results" && continue
		printf '{"Action":"output","Package":"%s","Test":"%s","Output":"there is no such test\\n"}\n{"Action":"fail","Package":"%s","Test":"%s"}\n' \
			"$package" "${line#* }" "$package" "${line#* }"
		found=1
	done
	return $found
}

main() {
	local kernel=$1 image name status=0
	choose "${2-}"
	[ -z "${TETRAGON_DIR-}" ] || [ -x "$TETRAGON_DIR/tetragon" ] || { say "$TETRAGON_DIR holds no tetragon"; exit 1; }
	[ "$(id -u)" = 0 ] || { say "needs root, to unpack packages"; exit 1; }
	[ "$(dpkg --print-architecture)" = amd64 ] || { say "emulates amd64 on amd64 only"; exit 1; }
	install_emulator
	mkdir -p "$cache"
	exec 9>"$cache/lock"
	flock -n 9 || { say "another machine is running, waiting for it"; flock 9; }

	image=$("$here/image.sh" "$kernel")
	name=$(cat "$image/name")
	work=$(mktemp -d)
	trap cleanup EXIT
	build "$work/root"
	{
		cat "$image/initramfs.cpio"
		cd "$work/root"
		find . -print0 | cpio --null --create --format=newc --owner=0:0 --quiet
	} >"$work/initramfs"
	cd "$image"
	rm -rf "$work/root"

	say "booting Linux $name"
	boot || status=$?
	grep -a '^e2e-vm: up' "$work/console" | tr -d '\r' >&2 || true
	if ! grep -aq '^e2e-vm: the tests have ended' "$work/console"; then
		explain "$name" $status
		exit 1
	fi
	missing "$name"
}

main "$@"
exit
