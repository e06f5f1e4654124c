package enforcer

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"profile/store"
)

func mustKnow(t *testing.T, until time.Time, sessions []store.Session, rows ...store.Evidence) Known {
	t.Helper()
	k, err := WhatIsKnown(sessions, rows, until, Thresholds{})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestDiffTellsWhatChanged(t *testing.T) {
	sessions := []store.Session{watched("a", 0, 10), watched("b", 10, 20)}
	before := mustKnow(t, time.Time{}, sessions,
		keyed("host", "/bin/gone", row("a", runs(1))),
		keyed("host", "/bin/new-file", row("a", of(oldFile, 1, 2, runs(1)))),
		keyed("host", "/bin/same", row("a", of(oldFile, 1, 2, runs(1)))),
		keyed("host", "/bin/turned", row("a", of(oldFile, 1, 2, runs(1)))))
	after := mustKnow(t, time.Time{}, sessions,
		keyed("host", "/bin/new-file", row("b", of(newFile, 11, 12, runs(1)))),
		keyed("host", "/bin/\xff", row("b", used(runs(1), "inet", "stream"))),
		keyed("shop", "/bin/same", row("a", runs(1))),
		keyed("host", "/bin/same", row("a", of(store.FileID{Dev: 9, Ino: 10, Size: 100, CtimeNS: 5}, 1, 2, runs(4)))),
		keyed("host", "/bin/turned", row("b", of(newFile, 11, 12, used(runs(1), "inet", "stream")))))
	want := []Change{
		{"host", "/bin/gone", "", "gone", Quiet, ""},
		{"host", "/bin/new-file", "", "file", Quiet, Quiet},
		{"shop", "/bin/same", "", "appeared", "", Quiet},
		{"host", "/bin/turned", "", "verdict", Quiet, Network},
		{"host", "/bin/turned", "", "file", Quiet, Network},
		{"host", `/bin/\xff`, "L2Jpbi//", "appeared", "", Network},
	}
	if diff := cmp.Diff(want, Diff(before, after)); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	if same := Diff(after, after); len(same) > 0 {
		t.Errorf("changes against itself: %v", same)
	}
}

func TestWhatIsKnownAtATime(t *testing.T) {
	sessions := []store.Session{watched("a", 0, 10), watched("b", 10, 20)}
	rows := []store.Evidence{
		keyed("host", "/bin/late", row("b", runs(1))),
		keyed("host", "/bin/tool", row("a", runs(1))),
		keyed("host", "/bin/tool", row("b", used(runs(1), "inet", "stream")))}
	early, late := mustKnow(t, at(10), sessions, rows...), mustKnow(t, at(20), sessions, rows...)
	want := []Change{{"host", "/bin/late", "", "appeared", "", Quiet}, {"host", "/bin/tool", "", "verdict", Quiet, Network}}
	if diff := cmp.Diff(want, Diff(early, late)); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
}

// A file that took another's place later was not there then.
func TestWhatIsKnownAtATimeBeforeAFileWasReplaced(t *testing.T) {
	sessions := []store.Session{watched("a", 0, 10), watched("b", 10, 20)}
	rows := []store.Evidence{
		keyed("host", "/bin/tool", row("a", of(oldFile, 1, 2, used(runs(1), "inet", "stream")))),
		keyed("host", "/bin/tool", row("b", of(newFile, 11, 12, runs(1))))}
	got := Diff(mustKnow(t, at(10), sessions, rows...), mustKnow(t, time.Time{}, sessions, rows...))
	want := []Change{{"host", "/bin/tool", "", "verdict", Network, Quiet}, {"host", "/bin/tool", "", "file", Network, Quiet}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	if _, err := WhatIsKnown(sessions, []store.Evidence{keyed("host", "/bin/tool", row("unrecorded", runs(1)))}, at(10), Thresholds{}); err == nil {
		t.Error("no error for a session that is not recorded")
	}
}

func TestWhatSinceLeavesOutIsNotKnown(t *testing.T) {
	sessions := []store.Session{watched("a", 0, 10), watched("b", 10, 20)}
	rows := []store.Evidence{keyed("host", "/bin/old", row("a", runs(1))), keyed("host", "/bin/tool", row("b", runs(1)))}
	k, err := WhatIsKnown(sessions, rows, time.Time{}, Thresholds{Since: at(15)})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Change{{"host", "/bin/tool", "", "appeared", "", Quiet}}, Diff(Known{}, k)); diff != "" {
		t.Errorf("known (-want +got):\n%s", diff)
	}
}

func TestNewUsers(t *testing.T) {
	got := NewUsers("b", []store.Evidence{
		keyed("host", "/bin/known", row("b", used(runs(1), "inet", "stream"))),
		keyed("host", "/bin/new", row("b", used(runs(1), "inet", "stream"))),
		keyed("host", "/bin/other-session", row("a", used(runs(1), "inet", "stream"))),
		keyed("host", "/bin/quiet", row("b", runs(1))),
		keyed("host", "/bin/was-quiet", row("b", used(runs(1), "inet6", "dgram")))},
		[]store.Evidence{
			keyed("build", "/bin/known", row("x", used(runs(1), "packet", "raw"))),
			keyed("host", "/bin/was-quiet", row("x", runs(5)))})
	if diff := cmp.Diff([]string{"/bin/new", "/bin/was-quiet"}, got); diff != "" {
		t.Errorf("new users (-want +got):\n%s", diff)
	}
}
