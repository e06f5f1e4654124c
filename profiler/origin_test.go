package profiler

import (
	"encoding/base64"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"testing"
	"time"

	api "github.com/cilium/tetragon/api/v1/tetragon"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"profile/internal/tetragon"
	"profile/store"
)

func TestAnEventIsOfThisHostByItsNodeItsTimeAndItsBoot(t *testing.T) {
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	booted := now.Add(-time.Duration(up.Nano()))
	event := func(node string, at, booted time.Time) *api.GetEventsResponse {
		started := at.Add(-time.Second)
		id := fmt.Sprintf("%s:%d:77", node, started.Sub(booted).Nanoseconds())
		return &api.GetEventsResponse{NodeName: node, Time: timestamppb.New(at), Event: &api.GetEventsResponse_ProcessExit{
			ProcessExit: &api.ProcessExit{Process: &api.Process{
				ExecId: base64.StdEncoding.EncodeToString([]byte(id)), StartTime: timestamppb.New(started)}}}}
	}
	plain := event(name, now, booted)
	plain.GetProcessExit().Process.ExecId = "made up"
	for _, c := range []struct {
		name string
		ev   *api.GetEventsResponse
		want bool
	}{
		{"of here and now", event(name, now, booted), true},
		{"a qualified name", event(name+".example.org", now, booted), true},
		{"held back", event(name, now.Add(-30*time.Second), booted), true},
		{"an exec_id that says nothing", plain, true},
		{"another node", event("another", now, booted), false},
		{"no node", event("", now, booted), false},
		{"recorded an hour ago", event(name, now.Add(-time.Hour), booted), false},
		{"a clock an hour ahead", event(name, now.Add(time.Hour), booted), false},
		{"another boot", event(name, now, booted.Add(-2*time.Hour)), false},
	} {
		if got := ofThisHost(c.ev); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// What came before it was found out is folded anew, with what is listed.
func TestWhatIsListedIsSoForAnAgentOfAnotherHost(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Labels = false })
	var early []*api.GetEventsResponse
	w.tap = func(ev *api.GetEventsResponse) { early = append(early, proto.Clone(ev).(*api.GetEventsResponse)) }
	w.exec(10, "/bin/listed")
	w.socket(10, 2, 1)
	w.exit(10)
	l := &learner{
		Options: Options{Agent: &tetragon.Agent{Name: "tetragon"}, Log: slog.New(slog.DiscardHandler)},
		session: store.Session{ID: "s"}, fold: w.f, origin: origin{early: early, since: time.Now().Add(-time.Minute)},
	}
	l.setListed([]listing{{1, []string{"/bin/listed"}, store.StageEnforce}})
	if !l.leaveCanaries() {
		t.Fatal("it is taken for one of this host")
	}
	rows := l.fold.Changed()
	i := slices.IndexFunc(rows, func(e *store.Evidence) bool { return e.Key.Path == "/bin/listed" })
	if i < 0 || len(rows[i].Files[0].Network) != 0 || len(rows[i].Attempts) != 1 {
		t.Errorf("rows %+v, want an attempt", rows)
	}
}
