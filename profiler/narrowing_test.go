package profiler

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	api "github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/protobuf/proto"

	"profile/internal/canary"
	"profile/internal/tetragon"
	"profile/store"
)

func TestAPolicyIsReloadedNoMoreThanNeeded(t *testing.T) {
	const none, some = uint64(1), uint64(narrowSockets)
	many := []string{"/1", "/2", "/3", "/4", "/5", "/6", "/7", "/8"}
	for _, c := range []struct {
		name      string
		now, want []string
		told      uint64
		after     time.Duration
		due       bool
	}{
		{"nothing new", []string{"/a"}, []string{"/a"}, some, time.Hour, false},
		{"one, soon", nil, []string{"/a"}, none, time.Minute, false},
		{"one, after a while", nil, []string{"/a"}, none, 10 * time.Minute, true},
		{"a loud one", nil, []string{"/a"}, some, time.Minute, true},
		{"a loud one, too soon", nil, []string{"/a"}, some, time.Minute - 1, false},
		{"many", nil, many, none, time.Minute, true},
		{"many, too soon", nil, many, none, time.Second, false},
		{"one comes out", []string{"/a", "/b"}, []string{"/a"}, none, 10 * time.Minute, true},
		{"the last comes out", []string{"/a"}, nil, none, 10 * time.Minute, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			now := time.Now()
			n := narrowing{pace: usualPace, paths: c.now, at: now.Add(-c.after)}
			sockets := map[string]uint64{}
			for _, path := range c.want {
				sockets[path] = c.told
			}
			if got := n.due(c.want, sockets, now); got != c.due {
				t.Errorf("due is %v, want %v", got, c.due)
			}
		})
	}
}

func TestAFileThatIsReplacedIsAskedForAgain(t *testing.T) {
	w := newWorld(t).open()
	file := filepath.Join(t.TempDir(), "tool")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file+".new", []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	l := &learner{bird: new(canary.Canary), fold: w.f}
	proven := func() bool {
		t.Helper()
		sockets := l.fold.Proven(l.narrowing.since)
		_, is := sockets[file]
		return is && l.sameFile(file, w.now)
	}
	w.exec(10, file)
	if proven() {
		t.Error("it is proven, and has opened no socket")
	}
	w.socket(10, 2, 1)
	for range 2 { // the second time it is known
		if !proven() {
			t.Error("it is not proven, and has opened a socket")
		}
	}
	write("another")
	w.pass(time.Second)
	for range 2 {
		if proven() {
			t.Error("it is proven by what the file before did")
		}
	}
	w.socket(10, 2, 1)
	if !proven() {
		t.Error("it is not proven, and has opened a socket since")
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	w.pass(time.Second)
	if proven() {
		t.Error("it is proven by a file that is gone")
	}
}

func TestWhatIsSilentSomewhereIsAskedForEverywhere(t *testing.T) {
	w := newWorld(t).open()
	w.exec(10, "/bin/tool")
	w.socket(10, 2, 1)
	w.exec(11, "/bin/net")
	w.socket(11, 2, 1)
	w.exec(12, "/bin/tool", as{docker: "abc"})
	w.exec(13, testCanary)
	w.socket(13, 2, 1)
	if got := w.f.Proven(nil); len(got) != 1 || got["/bin/net"] != 1 {
		t.Errorf("proven are %v, want /bin/net alone", got)
	}
	w.socket(12, 2, 1)
	if got := w.f.Proven(nil); len(got) != 2 {
		t.Errorf("proven are %v, want /bin/tool too", got)
	}
}

func TestTimesInWhichSocketsAreNotAskedFor(t *testing.T) {
	f := NewFold(Config{})
	sec := func(n int64) int64 { return n * 1e9 }
	f.Narrow([]string{"/a", "/b"}, sec(10))
	f.Narrow([]string{"/b", "/c"}, sec(20))
	f.Narrow([]string{"/a", "/b"}, sec(30))
	at := func(n int64) time.Time { return time.Unix(n, 0).UTC() }
	want := []store.Narrowed{{Path: "/a", From: at(9), To: at(21)}, {Path: "/a", From: at(29)}, {Path: "/b", From: at(9)}, {Path: "/c", From: at(19), To: at(31)}}
	var s store.Session
	f.Describe(&s)
	if !slices.Equal(s.Narrowed, want) {
		t.Errorf("narrowed %v\nwant     %v", s.Narrowed, want)
	}
}

// A record made while a learner had narrowed its policy does not tell of whom
// it no longer asked.
func TestARecordOfANarrowedLearnerProvesNothing(t *testing.T) {
	f := NewFold(Config{IsCanary: seemsCanary})
	for _, ev := range decode(t, "workstation.jsonl") {
		ev = proto.Clone(ev).(*api.GetEventsResponse)
		if k := ev.GetProcessKprobe(); k.GetFunctionName() == tetragon.CallSocketCreate {
			k.PolicyName = narrowedName("20260102t030405z-abcdef", 3)
		}
		f.Event(ev)
	}
	f.Finish()
	var s store.Session
	f.Describe(&s)
	if !s.NoSocketHook || len(s.Windows) > 0 || s.Awake > 0 {
		t.Errorf("session %+v, want that its socket hook proves nothing", s)
	}
}
