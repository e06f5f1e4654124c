package enforcer_test

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	api "github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"pgregory.net/rapid"

	"profile/enforcer"
	"profile/internal/tetragon"
	"profile/profiler"
	"profile/store"
)

// history is what happened on a machine, told to the real fold by events, as
// the sensor tells it, and to a model that keeps every run.
type history struct {
	now  time.Time
	live map[uint32]*api.Process
	next uint32 // pid of the next canary

	fold     *profiler.Fold
	session  store.Session
	sessions map[string]store.Session
	rows     map[string][]store.Evidence // by path

	past []*learned // sessions of the model
	m    *learned
}

const (
	modelCanary = "/run/canary"
	modelPolicy = "profile-learn-m"
)

// learned is one session of the model.
type learned struct {
	runs     []*ran
	of       map[uint32]*ran
	open     bool
	window   int
	from, to time.Time // of the last window
	gap      bool
	pending  []*ran // ended since the last canary
	attempts map[string]uint64
}

// ran is one run, by the rules of evidence.
type ran struct {
	path     string
	exec     time.Time
	live     int
	counted  bool // its exec was seen in a window
	window   int  // -1: its end lies in time that was not watched
	proven   bool // began before the last canary that came back
	ended    bool
	complete bool
	touched  bool // by a loss
	crossed  bool
	network  bool
}

func newHistory() *history {
	h := &history{now: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), live: map[uint32]*api.Process{}, next: 1 << 20,
		sessions: map[string]store.Session{}, rows: map[string][]store.Evidence{}}
	h.begin()
	return h
}

// begin begins a session: what is alive is told without its start.
func (h *history) begin() {
	id := fmt.Sprintf("s%02d", len(h.past))
	h.session = store.Session{ID: id, Agent: "embedded", Cgroup: "/", Families: tetragon.NetworkFamilies(), Started: h.now}
	h.fold = profiler.NewFold(profiler.Config{Session: id, Policy: modelPolicy, Labels: true, Forks: true, Losses: true, Canary: modelCanary})
	h.m = &learned{of: map[uint32]*ran{}, attempts: map[string]uint64{}}
	h.past = append(h.past, h.m)
	pids := []uint32{}
	for pid := range h.live {
		pids = append(pids, pid)
	}
	slices.Sort(pids)
	for _, pid := range pids {
		p := h.live[pid]
		p = &api.Process{Pid: p.Pid, Binary: p.Binary, Flags: "procFS", ExecId: p.ExecId, StartTime: p.StartTime}
		h.live[pid] = p
		h.send(&api.GetEventsResponse{Event: &api.GetEventsResponse_ProcessExec{ProcessExec: &api.ProcessExec{Process: p}}})
		r := &ran{path: p.Binary, live: 1}
		h.m.runs = append(h.m.runs, r)
		h.m.of[pid] = r
	}
}

// end ends a session, by a last flush or, killed, at the one before.
func (h *history) end() {
	h.fold.Finish()
	for _, row := range h.fold.Changed() {
		h.rows[row.Key.Path] = append(h.rows[row.Key.Path], *row)
	}
	h.fold.Describe(&h.session)
	h.sessions[h.session.ID] = h.session
}

func (h *history) send(ev *api.GetEventsResponse) {
	h.now = h.now.Add(time.Millisecond)
	ev.Time = timestamppb.New(h.now)
	h.fold.Event(ev)
}

func (h *history) kprobe(call string, pid uint32, data []*api.KprobeArgument, args ...*api.KprobeArgument) {
	h.send(&api.GetEventsResponse{Event: &api.GetEventsResponse_ProcessKprobe{ProcessKprobe: &api.ProcessKprobe{
		Process: h.live[pid], FunctionName: call, Args: args, Data: data, PolicyName: modelPolicy}}})
}

func number(n int32) *api.KprobeArgument {
	return &api.KprobeArgument{Arg: &api.KprobeArgument_IntArg{IntArg: n}}
}

func label(name, text string) *api.KprobeArgument {
	return &api.KprobeArgument{Label: name, Arg: &api.KprobeArgument_StringArg{StringArg: text}}
}

func (h *history) tellExec(pid uint32, path string) {
	flags := "execve"
	if p := h.live[pid]; p == nil || p.Flags == "fork" {
		flags = "execve clone"
	}
	if h.live[pid] == nil {
		h.live[pid] = h.process(pid, "", "")
	}
	h.kprobe(tetragon.CallExec, pid, []*api.KprobeArgument{label(tetragon.LabelFile, "1:2:3:4")},
		&api.KprobeArgument{Arg: &api.KprobeArgument_LinuxBinprmArg{LinuxBinprmArg: &api.KprobeLinuxBinprm{Path: path}}})
	h.live[pid] = h.process(pid, path, flags)
	h.send(&api.GetEventsResponse{Event: &api.GetEventsResponse_ProcessExec{ProcessExec: &api.ProcessExec{Process: h.live[pid]}}})
}

func (h *history) process(pid uint32, path, flags string) *api.Process {
	return &api.Process{Pid: wrapperspb.UInt32(pid), Binary: path, Flags: flags, ExecId: fmt.Sprintf("%d:%d", h.now.UnixNano(), pid), StartTime: timestamppb.New(h.now)}
}

func (h *history) tellFork(parent, child uint32) {
	h.kprobe(tetragon.CallFork, parent, nil, number(int32(child)), number(int32(child)))
	h.live[child] = h.process(child, h.live[parent].Binary, "fork")
}

func (h *history) tellExit(pid uint32) {
	p := h.live[pid]
	delete(h.live, pid)
	h.send(&api.GetEventsResponse{Event: &api.GetEventsResponse_ProcessExit{ProcessExit: &api.ProcessExit{Process: p}}})
}

func (h *history) tellSocket(pid uint32, stage string) {
	var data []*api.KprobeArgument
	if stage != "" {
		data = append(data, label(tetragon.LabelListed, stage))
	}
	h.kprobe(tetragon.CallSocketCreate, pid, data, number(2), number(1), number(0), number(0))
}

// tellHanded tells that the process used a socket that another has opened.
func (h *history) tellHanded(pid uint32, stage string) {
	var data []*api.KprobeArgument
	if stage != "" {
		data = append(data, label(tetragon.LabelListed, stage))
	}
	h.kprobe(tetragon.CallReceive, pid, data, &api.KprobeArgument{Arg: &api.KprobeArgument_SockArg{
		SockArg: &api.KprobeSock{Family: "AF_INET6", Type: "SOCK_STREAM", Daddr: "2001:db8::1", Dport: 7}}})
}

func (h *history) exec(pid uint32, path string) {
	h.tellExec(pid, path)
	r := &ran{path: path, exec: h.now, live: 1, counted: h.m.open, window: h.m.window}
	// The fold takes the time of the exec's probe or of its event: a run of a
	// millisecond's difference decides nothing here.
	h.m.runs = append(h.m.runs, r)
	old := h.m.of[pid]
	h.m.of[pid] = r
	if old != nil {
		h.m.leave(old)
	}
}

func (m *learned) leave(r *ran) {
	if r.live--; r.live > 0 {
		return
	}
	r.ended = true
	if m.open {
		m.pending = append(m.pending, r)
	} else if r.counted && r.proven && !r.crossed && r.window == m.window {
		r.window = -1
	}
}

// canary is one that came back.
func (h *history) canary() {
	pid, child := h.next, h.next+1
	h.next += 2
	h.tellExec(pid, modelCanary)
	h.tellFork(pid, child)
	h.tellExit(child)
	h.tellSocket(pid, "")
	h.tellExit(pid)
	m := h.m
	if m.open {
		for _, r := range m.pending {
			r.complete = r.counted && r.window == m.window
		}
	} else {
		m.open = true
		m.window++
		m.from = h.now
		for _, r := range m.runs {
			r.crossed = r.crossed || r.counted && (!r.ended || r.window < 0)
		}
	}
	m.to, m.pending = h.now, nil
	for _, r := range m.runs {
		r.proven = true
	}
}

// overdue is a canary that did not come back.
func (h *history) overdue() {
	h.fold.Overdue()
	m := h.m
	if !m.open {
		return
	}
	m.open = false
	for _, r := range m.pending {
		if r.counted && r.proven && r.window == m.window {
			r.window = -1
		}
	}
	m.pending = nil
}

func (h *history) lose() {
	h.send(&api.GetEventsResponse{Event: &api.GetEventsResponse_RateLimitInfo{RateLimitInfo: &api.RateLimitInfo{NumberOfDroppedProcessEvents: 1}}})
	if !h.m.open {
		return
	}
	h.m.gap = true
	for _, r := range h.m.runs {
		r.touched = r.touched || !r.ended || slices.Contains(h.m.pending, r)
	}
}

// verdict is that of the rules of evidence, from every run there was.
func (h *history) verdict(path string, t enforcer.Thresholds) string {
	complete := uint64(0)
	crossed, gap, long, short := false, false, false, false
	for _, m := range h.past {
		gap = gap || m.gap
		for _, r := range m.runs {
			if r.path != path {
				continue
			}
			if r.network {
				return enforcer.Network
			}
			crossed = crossed || r.crossed
			counts := r.counted && !(t.AcceptGaps && (r.touched || r.crossed))
			if counts && r.complete {
				complete++
			}
			if counts && !r.ended {
				watched := !r.exec.Before(m.from) && m.to.Sub(r.exec) >= t.MinWatch
				long, short = long || watched, short || !watched
			}
		}
	}
	switch {
	case gap && !t.AcceptGaps, crossed, short && complete < 3, complete < t.MinRuns && !long:
		return enforcer.Unproven
	}
	return enforcer.Quiet
}

// actions of a history; one that is there twice happens more often.
var actions = []string{"exec", "exec", "exec", "fork", "exit", "exit", "exit", "socket", "handed", "attempt", "handed attempt",
	"canary", "canary", "canary", "canary", "time", "overdue", "loss", "restart"}

func (h *history) act(t *rapid.T, action string) {
	pid := rapid.Uint32Range(10, 15).Draw(t, "pid")
	r := h.m.of[pid]
	switch {
	case action == "exec":
		h.exec(pid, rapid.SampledFrom(modelPaths).Draw(t, "path"))
	case action == "canary":
		h.canary()
	case action == "time":
		h.now = h.now.Add(20 * time.Minute)
	case r == nil:
	case action == "fork":
		child := rapid.Uint32Range(10, 15).Draw(t, "child")
		if h.m.of[child] == nil {
			h.tellFork(pid, child)
			h.m.of[child] = r
			r.live++
		}
	case action == "exit":
		h.tellExit(pid)
		delete(h.m.of, pid)
		h.m.leave(r)
	case action == "attempt":
		h.tellSocket(pid, store.StageEnforce)
		h.m.attempts[r.path]++
	case action == "handed attempt": // a listed process uses what it was given, which is neither
		h.tellHanded(pid, store.StageMonitor)
	case rapid.IntRange(0, 2).Draw(t, "seldom") > 0: // what decides most verdicts by itself
	case action == "socket":
		h.tellSocket(pid, "")
		r.network = true
	case action == "handed":
		h.tellHanded(pid, "")
		r.network = true
	case action == "overdue":
		h.overdue()
	case action == "loss":
		h.lose()
	case action == "restart":
		h.end()
		h.begin()
	}
}

var modelPaths = []string{"/bin/a", "/bin/b", "/bin/c"}

// A thousand histories and more: some rules decide few of them.
func TestVerdictsAreThoseOfTheRulesOverRandomHistories(t *testing.T) {
	for i := range 15 {
		t.Run(strconv.Itoa(i), func(t *testing.T) { rapid.Check(t, compareHistory) })
	}
}

func compareHistory(t *rapid.T) {
	h := newHistory()
	for range rapid.IntRange(0, 100).Draw(t, "actions") {
		h.act(t, rapid.SampledFrom(actions).Draw(t, "action"))
	}
	h.end()
	thresholds := enforcer.Thresholds{MinRuns: rapid.Uint64Range(1, 4).Draw(t, "min runs"),
		MinWatch: time.Duration(rapid.IntRange(1, 3).Draw(t, "min watch")) * 25 * time.Minute, AcceptGaps: rapid.Bool().Draw(t, "accept gaps")}
	for _, path := range modelPaths {
		h.compare(t, path, thresholds)
	}
}

func (h *history) compare(t *rapid.T, path string, thresholds enforcer.Thresholds) {
	rows := h.rows[path]
	want := h.verdict(path, thresholds)
	if len(rows) == 0 {
		if want == enforcer.Quiet || want == enforcer.Network {
			t.Fatalf("%s is not known, and should be %s", path, want)
		}
		return
	}
	v, err := enforcer.Judge(rows, h.sessions, thresholds)
	if err != nil {
		t.Fatal(err)
	}
	if v.Kind != want {
		t.Fatalf("%s is %s (%v), and by the rules %s, under %+v", path, v.Kind, v.Reasons, want, thresholds)
	}
	var attempts, counted uint64
	for _, a := range v.Attempts {
		counted += a.Count
	}
	for _, m := range h.past {
		attempts += m.attempts[path]
	}
	if counted != attempts {
		t.Fatalf("%s has %d attempts, want %d", path, counted, attempts)
	}
}
