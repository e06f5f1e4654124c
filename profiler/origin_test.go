package profiler

import (
	"encoding/base64"
	"fmt"
	"os"
	"testing"
	"time"

	api "github.com/cilium/tetragon/api/v1/tetragon"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/timestamppb"
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
