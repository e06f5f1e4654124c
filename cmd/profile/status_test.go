package main

import (
	"strings"
	"testing"
	"time"

	"profile/enforcer"
)

func TestKillsThatNobodyTimesHaveNoTime(t *testing.T) {
	rows := []enforcer.KillRow{{Path: "", Count: 4}, {Path: "/usr/bin/tar", Count: 1, Last: time.Now()}}
	lines := strings.Split(killLines("killed", rows), "\n")
	if !strings.HasPrefix(lines[0], "killed ×4: ") || strings.Contains(lines[0], "last") {
		t.Errorf("%q", lines[0])
	}
	if !strings.Contains(lines[1], "killed ×1, last 2") || !strings.HasSuffix(lines[1], ": /usr/bin/tar") {
		t.Errorf("%q", lines[1])
	}
}

// What an agent did since it was last asked is lost with its restart.
func TestCountsOverARestartAreAtLeastSoMany(t *testing.T) {
	s := &enforcer.Status{Stage: enforcer.StageNone, Kills: []enforcer.KillRow{{Count: 4}}}
	for _, restarted := range []bool{false, true} {
		s.Restarted = restarted
		if text := humanStatus(s, nil); strings.Contains(text, "at least") != restarted {
			t.Errorf("restarted %v: %q", restarted, text)
		}
	}
}
