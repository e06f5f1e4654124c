package sensor

import (
	"encoding/base64"
	"strconv"
	"strings"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"profile/internal/sensor/bpf"
)

// process is one live process: who it is, and the image it runs. The messages
// are shared by every event that names them and never changed.
type process struct {
	start  uint64 // boot time, ns; with the pid it is one process
	forked bool   // it has not exec'd since it was forked
	self   *tetragon.Process
	parent *tetragon.Process
}

// table follows the live processes, so that each event says whose it is. It is
// bounded by them: an exit that was lost leaves its entry until the pid is
// used again.
type table struct {
	node  string
	clock *clock
	live  map[uint32]*process
	paths *cgroupPaths
}

func newTable(node string, clock *clock, paths *cgroupPaths) *table {
	return &table{node: node, clock: clock, live: map[uint32]*process{}, paths: paths}
}

// execID is unique over a machine's boots as far as its clock is: the text is
// a real agent's, node:time:pid in base64.
func (t *table) execID(time uint64, pid uint32) string {
	text := append(make([]byte, 0, 64), t.node...)
	text = strconv.AppendUint(append(text, ':'), time, 10)
	text = strconv.AppendUint(append(text, ':'), uint64(pid), 10)
	return base64.StdEncoding.EncodeToString(text)
}

// get returns the process if it is the one that started then.
func (t *table) get(pid uint32, start uint64) *process {
	if p := t.live[pid]; p != nil && p.start == start {
		return p
	}
	return nil
}

// describe gives what the header tells of a process and its image.
func (t *table) describe(r *record) *tetragon.Process {
	p := &tetragon.Process{
		ExecId:    t.execID(r.Time, r.Pid),
		Pid:       wrapperspb.UInt32(r.Pid),
		Tid:       wrapperspb.UInt32(r.Tid),
		Uid:       wrapperspb.UInt32(r.Uid),
		Auid:      wrapperspb.UInt32(r.Auid),
		StartTime: t.clock.stamp(r.Time),
		Ns: &tetragon.Namespaces{Pid: &tetragon.Namespace{
			Inum:   r.Pidns,
			IsHost: r.Flags&uint16(bpf.SensorFlagFLAG_HOST_PIDNS) != 0,
		}},
	}
	if !p.Ns.Pid.IsHost {
		p.Docker = t.paths.path(r.Cgroup)
	}
	return p
}

// exec notes that a process runs a new image. It returns the process before,
// which may have been unknown, and after.
func (t *table) exec(r *record) (before, after *process) {
	before = t.get(r.Pid, r.Start)
	self := t.describe(r)
	self.Cwd = text(r.cwd)
	self.Binary = text(r.binary())
	self.Arguments = arguments(r.args)
	self.Flags = "execve"
	after = &process{start: r.Start, self: self}
	if before == nil {
		// It came into sight with this exec: from outside the cgroup, or its fork was lost.
		before = &process{start: r.Start, self: t.unknown(r), parent: t.parentOf(r)}
		self.Flags = "execve clone"
	}
	if before.forked {
		self.Flags = "execve clone"
	}
	after.parent = before.parent
	if after.parent != nil {
		self.ParentExecId = after.parent.ExecId
	}
	t.live[r.Pid] = after
	return before, after
}

func (t *table) parentOf(r *record) *tetragon.Process {
	if p := t.get(r.Parent, r.ParentStart); p != nil {
		return p.self
	}
	return nil
}

// unknown describes a process of which nothing was seen: a real agent marks it so.
func (t *table) unknown(r *record) *tetragon.Process {
	p := t.describe(r)
	p.ExecId = t.execID(r.Start, r.Pid)
	p.StartTime = t.clock.stamp(r.Start)
	p.Binary = text(r.path)
	p.Flags = "procFS"
	return p
}

// find returns the process of a record, described anew if it was unknown.
func (t *table) find(r *record) *process {
	if p := t.get(r.Pid, r.Start); p != nil {
		return p
	}
	p := &process{start: r.Start, self: t.unknown(r), parent: t.parentOf(r)}
	t.live[r.Pid] = p
	return p
}

// before notes a process that ran before the policy was loaded.
func (t *table) before(r *record, args, cwd string) *process {
	if p := t.get(r.Pid, r.Start); p != nil {
		return p // its messages were published, and must not change
	}
	p := t.find(r)
	p.self.Arguments, p.self.Cwd = args, cwd
	return p
}

// fork notes a child. It is nil if the child is known already: from the list
// of those that ran before, which was taken after the fork was told.
func (t *table) fork(r *record) (parent, child *process) {
	if t.get(r.Child, r.ChildStart) != nil {
		return nil, nil
	}
	// A parent outside the cgroup of the policy is not followed.
	if parent = t.get(r.Pid, r.Start); parent == nil {
		parent = &process{start: r.Start, self: t.unknown(r)}
	}
	self := &tetragon.Process{
		ExecId:       t.execID(r.ChildStart, r.Child),
		Pid:          wrapperspb.UInt32(r.Child),
		Tid:          wrapperspb.UInt32(r.Child),
		Uid:          parent.self.Uid,
		Auid:         parent.self.Auid,
		Cwd:          parent.self.Cwd,
		Binary:       parent.self.Binary,
		Arguments:    parent.self.Arguments,
		Flags:        strings.TrimSuffix(parent.self.Flags, " clone"),
		StartTime:    t.clock.stamp(r.ChildStart),
		ParentExecId: parent.self.ExecId,
		Docker:       parent.self.Docker,
		Ns:           parent.self.Ns,
	}
	child = &process{start: r.ChildStart, forked: true, self: self, parent: parent.self}
	t.live[r.Child] = child
	return parent, child
}

// exit forgets a process. It is nil if it was not known: one that ended while
// the list of those that ran before was taken.
func (t *table) exit(r *record) *process {
	p := t.get(r.Pid, r.Start)
	if p != nil {
		delete(t.live, r.Pid)
	}
	return p
}

// text makes the kernel's bytes fit for a message: protobuf takes UTF-8 only.
// Where the bytes matter they travel beside it.
func text(raw []byte) string { return strings.ToValidUTF8(string(raw), "\uFFFD") }

// binary is the name as executed, made absolute.
func (r *record) binary() []byte {
	if len(r.name) == 0 || r.name[0] == '/' || len(r.cwd) == 0 {
		return r.name
	}
	name := []byte(strings.TrimSuffix(string(r.cwd), "/") + "/")
	rest := r.name
	for len(rest) > 2 && rest[0] == '.' && rest[1] == '/' {
		rest = rest[2:]
	}
	return append(name, rest...)
}

// arguments joins what follows the first of them as a real agent does: with
// spaces, and quotes around one that has a space itself.
func arguments(raw []byte) string {
	all := strings.Split(strings.TrimSuffix(text(raw), "\x00"), "\x00")
	if len(all) < 2 {
		return ""
	}
	for i, a := range all {
		if strings.ContainsRune(a, ' ') {
			all[i] = `"` + a + `"`
		}
	}
	return strings.Join(all[1:], " ")
}
