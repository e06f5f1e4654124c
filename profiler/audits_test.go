package profiler

import (
	"testing"

	api "github.com/cilium/tetragon/api/v1/tetragon"

	"profile/internal/tetragon"
)

// A record holds the events of every policy that the agent had: those that act
// say nothing of what was watched.
func TestOfARecordTheEventsOfPoliciesThatActAreNotHeeded(t *testing.T) {
	const post = api.KprobeAction_KPROBE_ACTION_POST
	for _, c := range []struct {
		policy string // that the session loaded
		of     string
		action api.KprobeAction
		want   bool
	}{
		{"", "somebody's", post, true},
		{"", "", post, true},
		{"", tetragon.EnforcePrefix + "0123-g1", post, false},
		{"", "somebody's", api.KprobeAction_KPROBE_ACTION_SIGKILL, false},
		{"", "somebody's", api.KprobeAction_KPROBE_ACTION_SIGNAL, false},
		{"", "somebody's", api.KprobeAction_KPROBE_ACTION_OVERRIDE, false},
		{"", "somebody's", api.KprobeAction_KPROBE_ACTION_NOTIFYENFORCER, false},
		{testPolicy, testPolicy, post, true},
		{testPolicy, testPolicy + "-sockets", post, true},
		{testPolicy, testPolicy + "2", post, false},
		{testPolicy, "somebody's", post, false},
	} {
		f := NewFold(Config{Policy: c.policy})
		if got := f.audits(&api.ProcessKprobe{PolicyName: c.of, Action: c.action}); got != c.want {
			t.Errorf("session of %q: events of %q, %v, count: %v", c.policy, c.of, c.action, got)
		}
	}
}
