package tetragon

import (
	"regexp"

	"golang.org/x/mod/semver"
)

// Abilities say what an agent can do. The numbers are of FACTS: tried on
// v1.3.0, v1.6.1 and v1.7.0, read in the source for those between.
type Abilities struct {
	// Monitor: it knows the option policy-mode and ConfigureTracingPolicy.
	// Before v1.4 a policy in monitor mode kills.
	Monitor bool
	// Counters: it counts what its policies posted and did (from v1.6).
	Counters bool
	// TaskArgs: a kprobe may name a field of a task_struct, so that forks can
	// be told from threads (from v1.6). Before, a tracepoint tells of both.
	TaskArgs bool
	// Sockaddrs: a kprobe may have a socket and its address for arguments, and
	// select by the family of a socket (from v1.4).
	Sockaddrs bool
}

var majorMinor = regexp.MustCompile(`^v?(\d+)\.(\d+)`)

// abilitiesOf tells what a version can do. One that cannot be read is taken
// for the oldest, unless the agent answers what only newer ones know.
func abilitiesOf(version string, hasInfo bool) Abilities {
	v := "v0.0"
	if m := majorMinor.FindStringSubmatch(version); m != nil {
		v = "v" + m[1] + "." + m[2]
	}
	since := func(first string) bool { return hasInfo || semver.Compare(v, first) >= 0 }
	return Abilities{Monitor: since("v1.4"), Counters: since("v1.6"), TaskArgs: since("v1.6"), Sockaddrs: since("v1.4")}
}
