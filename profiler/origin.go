package profiler

import (
	"encoding/base64"
	"os"
	"strconv"
	"strings"
	"time"

	api "github.com/cilium/tetragon/api/v1/tetragon"
	"golang.org/x/sys/unix"
)

// origin finds out whether an agent at an address of this host is of this host:
// one behind a forwarded port, and a recording that is played back, are not.
// Until it is known, what came is kept, since a learner without canaries has
// another way to take it.
type origin struct {
	known bool
	node  string // that the first event tells of
	since time.Time
	early []*api.GetEventsResponse
}

const (
	// foreignAfter is how long an agent whose events are not of this host has
	// until a canary comes back through it.
	foreignAfter = 2 * time.Second
	// maxEarly bounds what is kept meanwhile.
	maxEarly = 200_000
)

// settle says that the agent is of this host, or that it can no longer be found
// out whether it is.
func (o *origin) settle() { o.known, o.early = true, nil }

// take notes an event.
func (o *origin) take(ev *api.GetEventsResponse) {
	if o.known {
		return
	}
	if ofThisHost(ev) || len(o.early) == maxEarly {
		o.settle()
		return
	}
	if o.early == nil {
		o.node, o.since = ev.GetNodeName(), time.Now()
	}
	o.early = append(o.early, ev)
}

// foreign reports whether it is time to take the agent for one of another host.
func (o *origin) foreign() bool {
	return !o.known && o.early != nil && time.Since(o.since) >= foreignAfter
}

// toldWithin is how far from now an event of this host may be timed: twice as
// long as an agent holds one back. bootWithin is how far apart two accounts of
// this host's boot may be, since clocks are set.
const (
	toldWithin = 2 * heldBack
	bootWithin = time.Minute
)

// ofThisHost reports whether an event can be of this host and of now: by the
// name of its node, by its time, and by when the host of its process booted.
func ofThisHost(ev *api.GetEventsResponse) bool {
	now := time.Now()
	if !sameNode(ev.GetNodeName()) || now.Sub(ev.GetTime().AsTime()).Abs() > toldWithin {
		return false
	}
	since, started, ok := sinceBoot(processOf(ev))
	if !ok {
		return true
	}
	for _, clock := range []int32{unix.CLOCK_BOOTTIME, unix.CLOCK_MONOTONIC} { // apart where it slept
		var up unix.Timespec
		if unix.ClockGettime(clock, &up) == nil {
			booted := now.Add(-time.Duration(up.Nano()))
			if started.Add(-since).Sub(booted).Abs() <= bootWithin {
				return true
			}
		}
	}
	return false
}

// sameNode compares the first labels: one of the two may be qualified.
func sameNode(node string) bool {
	name, err := os.Hostname()
	if err != nil {
		return false
	}
	first := func(s string) string { s, _, _ = strings.Cut(s, "."); return s }
	return node != "" && strings.EqualFold(first(node), first(name))
}

// sinceBoot is when a process started, on the clock of its host that begins
// with the boot, and by the calendar. Its exec_id is base64 of node:ktime:pid
// (FACTS).
func sinceBoot(p *api.Process) (since time.Duration, started time.Time, ok bool) {
	id, err := base64.StdEncoding.DecodeString(p.GetExecId())
	parts := strings.Split(string(id), ":")
	if err != nil || len(parts) < 3 || p.GetStartTime() == nil {
		return 0, time.Time{}, false
	}
	n, err := strconv.ParseInt(parts[len(parts)-2], 10, 64)
	return time.Duration(n), p.GetStartTime().AsTime(), err == nil
}

// processOf is the process that an event of the audit policy tells of.
func processOf(ev *api.GetEventsResponse) *api.Process {
	switch {
	case ev.GetProcessExec() != nil:
		return ev.GetProcessExec().GetProcess()
	case ev.GetProcessExit() != nil:
		return ev.GetProcessExit().GetProcess()
	}
	return ev.GetProcessKprobe().GetProcess()
}

// leaveCanaries goes on as with an agent of another host, if it is one: what
// has come is folded anew.
func (l *learner) leaveCanaries() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.origin.foreign() {
		return false
	}
	l.Log.Warn("the agent tells of another host, and no canary comes back through it: "+
		"what is watched is the time from its first event to its last", "agent", l.Agent.Address, "node", l.origin.node)
	early := l.origin.early
	l.origin.settle()
	l.bird, l.session.BootID, l.session.Machine = nil, "", ""
	cfg := l.config()
	was, listed := l.fold.cfg, l.fold.listed
	cfg.NoExecs, cfg.Forks, cfg.Uses = was.NoExecs, was.Forks, was.Uses // as it was deployed
	l.fold = NewFold(cfg)
	l.fold.SetListed(listed)
	for _, ev := range early {
		l.fold.Event(ev)
	}
	return true
}
