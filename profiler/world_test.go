package profiler

import (
	"fmt"
	"net/netip"
	"time"

	api "github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"pgregory.net/rapid"

	"profile/internal/tetragon"
	"profile/store"
)

const (
	testPolicy = "profile-learn-s"
	testCanary = "/run/canary"
)

// world tells a fold of processes as the embedded sensor does: one event each
// millisecond, in order.
type world struct {
	t    rapid.TB
	f    *Fold
	now  time.Time
	live map[uint32]*api.Process
	rows map[string]store.Evidence // as stored so far
	next uint32                    // pid of the next canary
	tap  func(*api.GetEventsResponse)
}

// begun is when a world begins.
var begun = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func newWorld(t rapid.TB, change ...func(*Config)) *world {
	cfg := Config{Session: "s", Policy: testPolicy, Labels: true, Forks: true, Losses: true, Canary: testCanary}
	for _, c := range change {
		c(&cfg)
	}
	w := &world{t: t, f: NewFold(cfg), now: begun, live: map[uint32]*api.Process{}, rows: map[string]store.Evidence{}, next: 1 << 20}
	w.f.clock = func() time.Time { return w.now }
	return w
}

func (w *world) send(ev *api.GetEventsResponse) {
	w.now = w.now.Add(time.Millisecond)
	ev.Time = timestamppb.New(w.now)
	w.f.Event(ev)
	if w.tap != nil {
		w.tap(ev)
	}
}

// as is how an exec or a socket differs from the plain one.
type as struct {
	name, cwd, file, args string
	script                bool
	nameless              string // why
	raw, rawName          string
	docker                string
	pidns                 uint32
	listed                string
	held                  bool
	policy                string
	path                  string // of a socket event
}

func one(opts []as) as {
	if len(opts) == 0 {
		return as{}
	}
	return opts[0]
}

func (w *world) process(pid uint32, binary, flags string) *api.Process {
	return &api.Process{
		Pid: wrapperspb.UInt32(pid), Binary: binary, Flags: flags,
		ExecId:    fmt.Sprintf("%d:%d", w.now.UnixNano(), pid),
		StartTime: timestamppb.New(w.now),
	}
}

// who is the process of a pid, as the sensor would name one it does not know.
func (w *world) who(pid uint32) *api.Process {
	if p := w.live[pid]; p != nil {
		return p
	}
	p := w.process(pid, "", "procFS")
	w.live[pid] = p
	return p
}

func (w *world) kprobe(call string, p *api.Process, args, data []*api.KprobeArgument, policy string) {
	if policy == "" {
		policy = testPolicy
	}
	w.send(&api.GetEventsResponse{Event: &api.GetEventsResponse_ProcessKprobe{ProcessKprobe: &api.ProcessKprobe{
		Process: p, FunctionName: call, Args: args, Data: data, PolicyName: policy}}})
}

func ints(values ...int32) []*api.KprobeArgument {
	var args []*api.KprobeArgument
	for _, v := range values {
		args = append(args, &api.KprobeArgument{Arg: &api.KprobeArgument_IntArg{IntArg: v}})
	}
	return args
}

func text(label, v string) *api.KprobeArgument {
	return &api.KprobeArgument{Label: label, Arg: &api.KprobeArgument_StringArg{StringArg: v}}
}

func raw(label, v string) *api.KprobeArgument {
	return &api.KprobeArgument{Label: label, Arg: &api.KprobeArgument_BytesArg{BytesArg: []byte(v)}}
}

func flag(label string) *api.KprobeArgument {
	return &api.KprobeArgument{Label: label, Arg: &api.KprobeArgument_IntArg{IntArg: 1}}
}

func (w *world) fork(parent, child uint32) {
	p := w.who(parent)
	w.kprobe(tetragon.CallFork, p, ints(int32(child), int32(child)), nil, "")
	w.live[child] = w.process(child, p.Binary, "execve")
}

func (w *world) thread(of, tid uint32) {
	w.kprobe(tetragon.CallFork, w.who(of), ints(int32(tid), int32(of)), nil, "")
}

func (w *world) probe(pid uint32, path string, opts ...as) {
	o := one(opts)
	file := o.file
	if file == "" {
		file = "1:2:3:4"
	}
	data := []*api.KprobeArgument{text(tetragon.LabelFile, file)}
	if file == "-" { // not told
		data = nil
	}
	if o.script {
		data = append(data, flag(tetragon.LabelScript))
	}
	if o.nameless != "" {
		data = append(data, text(tetragon.LabelUnnameable, o.nameless))
	}
	if o.raw != "" {
		data = append(data, raw(tetragon.LabelPath, o.raw))
	}
	if o.rawName != "" {
		data = append(data, raw(tetragon.LabelBinary, o.rawName))
	}
	if o.pidns != 0 {
		data = append(data, &api.KprobeArgument{Label: tetragon.LabelPIDNS, Arg: &api.KprobeArgument_UintArg{UintArg: o.pidns}})
	}
	w.kprobe(tetragon.CallExec, w.who(pid), []*api.KprobeArgument{{Arg: &api.KprobeArgument_LinuxBinprmArg{
		LinuxBinprmArg: &api.KprobeLinuxBinprm{Path: path}}}}, data, o.policy)
}

func (w *world) image(pid uint32, path string, opts ...as) {
	o := one(opts)
	name := o.name
	if name == "" {
		name = path
	}
	flags := "execve"
	// As the sensor: the first exec of a process, or of one it did not know.
	if before := w.live[pid]; before == nil || before.Cwd == "" && (before.Flags == "execve" || before.Binary == "") {
		flags = "execve clone"
	}
	p := w.process(pid, name, flags)
	p.Cwd, p.Arguments, p.Docker = "/cwd", o.args, o.docker
	if o.cwd != "" {
		p.Cwd = o.cwd
	}
	w.live[pid] = p
	w.send(&api.GetEventsResponse{Event: &api.GetEventsResponse_ProcessExec{ProcessExec: &api.ProcessExec{Process: p}}})
}

func (w *world) exec(pid uint32, path string, opts ...as) {
	w.probe(pid, path, opts...)
	w.image(pid, path, opts...)
}

func (w *world) exit(pids ...uint32) {
	for _, pid := range pids {
		p := w.who(pid)
		delete(w.live, pid)
		w.send(&api.GetEventsResponse{Event: &api.GetEventsResponse_ProcessExit{ProcessExit: &api.ProcessExit{Process: p}}})
	}
}

// runs is a run of one process from its exec to its exit.
func (w *world) runs(pid uint32, path string, opts ...as) {
	w.exec(pid, path, opts...)
	w.exit(pid)
}

func (w *world) socket(pid uint32, family, typ int32, opts ...as) {
	o := one(opts)
	var data []*api.KprobeArgument
	if o.path != "" {
		data = append(data, raw(tetragon.LabelPath, o.path))
	}
	if o.listed != "" {
		data = append(data, text(tetragon.LabelListed, o.listed))
	}
	if o.held {
		data = append(data, flag(tetragon.LabelHeld))
	}
	w.kprobe(tetragon.CallSocketCreate, w.who(pid), ints(family, typ, 0, 0), data, o.policy)
}

// uses tells what a socket is used for: call, family, type, address.
func (w *world) uses(pid uint32, call, family, typ, to string, opts ...as) {
	addr := netip.MustParseAddrPort(to)
	var data []*api.KprobeArgument
	if stage := one(opts).listed; stage != "" {
		data = append(data, &api.KprobeArgument{Label: tetragon.LabelListed, Arg: &api.KprobeArgument_StringArg{StringArg: stage}})
	}
	w.kprobe(call, w.who(pid), []*api.KprobeArgument{
		{Arg: &api.KprobeArgument_SockArg{SockArg: &api.KprobeSock{Family: family, Type: typ}}},
		{Arg: &api.KprobeArgument_SockaddrArg{SockaddrArg: &api.KprobeSockaddr{Family: family, Addr: addr.Addr().String(), Port: uint32(addr.Port())}}},
	}, data, testPolicy)
}

// handed tells that a socket is used which another process has opened: call,
// family, type, and the address of the peer, "" if it has none.
func (w *world) handed(pid uint32, call, family, typ, peer string, opts ...as) {
	sock := &api.KprobeSock{Family: family, Type: typ}
	if peer != "" {
		addr := netip.MustParseAddrPort(peer)
		sock.Daddr, sock.Dport = addr.Addr().String(), uint32(addr.Port())
	}
	var data []*api.KprobeArgument
	if stage := one(opts).listed; stage != "" {
		data = append(data, text(tetragon.LabelListed, stage))
	}
	w.kprobe(call, w.who(pid), []*api.KprobeArgument{{Arg: &api.KprobeArgument_SockArg{SockArg: sock}}}, data, testPolicy)
}

// before tells of a process that ran before the policy was loaded.
func (w *world) before(pid uint32, path string) {
	p := w.process(pid, path, "procFS")
	w.live[pid] = p
	w.send(&api.GetEventsResponse{Event: &api.GetEventsResponse_ProcessExec{ProcessExec: &api.ProcessExec{Process: p}}})
}

// again tells once more of the exec of a live process.
func (w *world) again(pid uint32) {
	w.send(&api.GetEventsResponse{Event: &api.GetEventsResponse_ProcessExec{ProcessExec: &api.ProcessExec{Process: w.live[pid]}}})
}

// loss is told after a number of events were lost.
func (w *world) loss(n uint64) {
	w.send(&api.GetEventsResponse{Event: &api.GetEventsResponse_RateLimitInfo{RateLimitInfo: &api.RateLimitInfo{NumberOfDroppedProcessEvents: n}}})
}

// canary is a whole canary, but for what is left out.
func (w *world) canary(without ...string) {
	has := func(what string) bool {
		for _, x := range without {
			if x == what {
				return false
			}
		}
		return true
	}
	pid, child := w.next, w.next+1
	w.next += 2
	if has("exec") {
		w.exec(pid, testCanary)
	}
	if has("fork") {
		w.fork(pid, child)
		w.exit(child)
	}
	if has("socket") {
		w.socket(pid, 2, 2)
	}
	if w.f.cfg.Uses && has("bind") {
		w.uses(pid, tetragon.CallBind, "AF_INET", "SOCK_DGRAM", "127.0.0.1:0")
	}
	if w.f.cfg.Uses && has("connect") {
		w.uses(pid, tetragon.CallConnect, "AF_INET", "SOCK_DGRAM", "127.0.0.1:9")
	}
	if has("exit") {
		w.exit(pid)
	}
}

// open opens the window.
func (w *world) open() *world {
	w.canary()
	if _, open := w.f.Opened(); !open {
		w.t.Fatal("the window did not open")
	}
	return w
}

// pass lets time go by without an event.
func (w *world) pass(d time.Duration) { w.now = w.now.Add(d) }

func (w *world) flush() {
	for _, row := range w.f.Changed() {
		w.rows[row.Key.Path] = *row
	}
}

// tally is the one tally of a path.
func (w *world) tally(path string) store.Tally {
	w.t.Helper()
	w.flush()
	row, ok := w.rows[path]
	if !ok {
		return store.Tally{}
	}
	if len(row.Files) != 1 {
		w.t.Fatalf("%s has %d tallies, want 1", path, len(row.Files))
	}
	return row.Files[0]
}

// count is what a tally says of runs, without times.
type count struct {
	Seen, Complete, Clean, Crossed uint64
	Going, Touched                 uint64 // of those that go on
	Unseen                         uint64
	Alive                          int // of those not seen to start
	Network                        uint64
}

func (w *world) count(path string) count {
	w.t.Helper()
	x := w.tally(path)
	c := count{
		Seen: x.Seen, Complete: x.Complete, Clean: x.Clean, Crossed: x.Crossed,
		Going: x.Going.Clean, Touched: x.Going.Touched, Unseen: x.UnseenCount, Alive: len(x.Unseen),
	}
	for _, u := range x.Network {
		c.Network = max(c.Network, u.Runs)
	}
	return c
}

func (w *world) want(path string, want count) {
	w.t.Helper()
	if got := w.count(path); got != want {
		w.t.Errorf("%s:\n got %+v\nwant %+v", path, got, want)
	}
}

func (w *world) session() store.Session {
	var s store.Session
	w.f.Describe(&s)
	return s
}
