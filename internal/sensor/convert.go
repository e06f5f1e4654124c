package sensor

import (
	"fmt"
	"strconv"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"golang.org/x/sys/unix"

	"profile/internal/sensor/bpf"
	names "profile/internal/tetragon"
)

// converter turns the records of one audit policy into the events of a real
// agent, and publishes them in the kernel's order.
type converter struct {
	policy  *Policy
	table   *table
	publish func(*tetragon.GetEventsResponse)
	kprobes uint64 // events of the policy's own hooks so far
}

func (c *converter) send(r *record, ev *tetragon.GetEventsResponse) {
	ev.NodeName = c.table.node
	ev.Time = c.table.clock.stamp(r.Time)
	c.publish(ev)
}

func (c *converter) sendKprobe(r *record, p *process, call string, args, data []*tetragon.KprobeArgument) {
	c.kprobes++
	c.send(r, &tetragon.GetEventsResponse{Event: &tetragon.GetEventsResponse_ProcessKprobe{ProcessKprobe: &tetragon.ProcessKprobe{
		Process:      p.self,
		Parent:       p.parent,
		FunctionName: call,
		Args:         args,
		Data:         data,
		Action:       tetragon.KprobeAction_KPROBE_ACTION_POST,
		ReturnAction: tetragon.KprobeAction_KPROBE_ACTION_POST,
		PolicyName:   c.policy.Name,
	}}})
}

func (c *converter) sendExec(r *record, p *process) {
	c.send(r, &tetragon.GetEventsResponse{Event: &tetragon.GetEventsResponse_ProcessExec{
		ProcessExec: &tetragon.ProcessExec{Process: p.self, Parent: p.parent}}})
}

// convert handles one record.
func (c *converter) convert(r *record) {
	switch bpf.SensorKind(r.Kind) {
	case bpf.SensorKindKIND_EXEC:
		before, after := c.table.exec(r)
		if c.policy.Execs {
			c.sendKprobe(r, before, names.CallExec, []*tetragon.KprobeArgument{{Arg: &tetragon.KprobeArgument_LinuxBinprmArg{
				LinuxBinprmArg: &tetragon.KprobeLinuxBinprm{Path: text(r.path)}}}}, c.execData(r))
		}
		c.sendExec(r, after)
	case bpf.SensorKindKIND_TASK:
		c.before(r)
	case bpf.SensorKindKIND_FORK:
		parent, child := c.table.fork(r)
		if child != nil && c.policy.Forks {
			pid := intArg(int32(r.Child))
			c.sendKprobe(r, parent, names.CallFork, []*tetragon.KprobeArgument{pid, pid}, nil)
		}
	case bpf.SensorKindKIND_EXIT:
		if p := c.table.exit(r); p != nil {
			c.sendExit(r, p)
		}
	case bpf.SensorKindKIND_LEFT:
		if p := c.table.get(r.Pid, r.Start); p != nil && c.policy.Details {
			c.sendKprobe(r, p, names.CallLeave, nil, nil)
		}
	case bpf.SensorKindKIND_SOCKET, bpf.SensorKindKIND_HELD:
		// The kernel tells a socket once for each process: few are left to compare.
		if c.policy.Sockets && c.policy.matches(string(r.path)) {
			c.sendKprobe(r, c.table.find(r), names.CallSocketCreate, []*tetragon.KprobeArgument{
				intArg(int32(r.Family)), intArg(int32(r.Type)), intArg(int32(r.Protocol)), intArg(0)}, c.socketData(r))
		}
	case bpf.SensorKindKIND_CONNECT:
		c.sendUse(r, names.CallConnect, c.policy.Connects)
	case bpf.SensorKindKIND_BIND:
		c.sendUse(r, names.CallBind, c.policy.Binds)
	case bpf.SensorKindKIND_SEND:
		c.sendUse(r, names.CallSend, c.policy.Sends)
	case bpf.SensorKindKIND_HANDED_SEND:
		c.sendHanded(r, names.CallSend)
	case bpf.SensorKindKIND_HANDED_RECV:
		c.sendHanded(r, names.CallReceive)
	}
}

// sendUse tells what a socket is used for, in the form of a real agent.
func (c *converter) sendUse(r *record, call string, asked bool) {
	if !asked || !c.policy.matches(string(r.path)) {
		return
	}
	family := names.SockFamilyName(int32(r.Family))
	c.sendKprobe(r, c.table.find(r), call, []*tetragon.KprobeArgument{
		{Arg: &tetragon.KprobeArgument_SockArg{SockArg: &tetragon.KprobeSock{
			Family: family, Type: names.SockTypeName(int32(r.Type)), Protocol: strconv.Itoa(int(r.Protocol))}}},
		{Arg: &tetragon.KprobeArgument_SockaddrArg{SockaddrArg: &tetragon.KprobeSockaddr{
			Family: family, Addr: r.address.Addr().String(), Port: uint32(r.address.Port())}}},
	}, c.socketData(r))
}

// sendHanded tells of the use of a socket that the process was handed.
func (c *converter) sendHanded(r *record, call string) {
	if !c.policy.Receives || !c.policy.matches(string(r.path)) {
		return
	}
	sock := &tetragon.KprobeSock{Family: names.SockFamilyName(int32(r.Family)), Type: names.SockTypeName(int32(r.Type)), Protocol: strconv.Itoa(int(r.Protocol))}
	if r.address.Port() != 0 {
		sock.Daddr, sock.Dport = r.address.Addr().String(), uint32(r.address.Port())
	}
	c.sendKprobe(r, c.table.find(r), call,
		[]*tetragon.KprobeArgument{{Arg: &tetragon.KprobeArgument_SockArg{SockArg: sock}}}, c.socketData(r))
}

// before tells of a process whose start was not seen.
func (c *converter) before(r *record) {
	args, cwd := ask(r.Pid)
	c.sendExec(r, c.table.before(r, args, cwd))
}

func (c *converter) sendExit(r *record, p *process) {
	exit := &tetragon.ProcessExit{Process: p.self, Parent: p.parent, Time: c.table.clock.stamp(r.Time)}
	ws := syscall.WaitStatus(r.Code)
	if ws.Signaled() {
		exit.Signal = unix.SignalName(ws.Signal())
	} else {
		exit.Status = uint32(ws.ExitStatus())
	}
	c.send(r, &tetragon.GetEventsResponse{Event: &tetragon.GetEventsResponse_ProcessExit{ProcessExit: exit}})
}

// sendLoss tells of records that the ring had no room for.
func (c *converter) sendLoss(lost uint64) {
	c.send(&record{SensorEvent: bpf.SensorEvent{Time: uint64(bootNow())}}, &tetragon.GetEventsResponse{
		Event: &tetragon.GetEventsResponse_RateLimitInfo{RateLimitInfo: &tetragon.RateLimitInfo{NumberOfDroppedProcessEvents: lost}}})
}

// sendLapse tells that what was told as listed since a time may not have been.
func (c *converter) sendLapse(why string, since time.Time) {
	if !c.policy.Details {
		return
	}
	c.sendKprobe(&record{SensorEvent: bpf.SensorEvent{Time: uint64(bootNow())}}, &process{}, names.CallLapse, nil, []*tetragon.KprobeArgument{
		stringData(names.LabelWhy, text([]byte(why))),
		{Label: names.LabelSince, Arg: &tetragon.KprobeArgument_LongArg{LongArg: since.UnixNano()}}})
}

func intArg(v int32) *tetragon.KprobeArgument {
	return &tetragon.KprobeArgument{Arg: &tetragon.KprobeArgument_IntArg{IntArg: v}}
}

func intData(label string, v int32) *tetragon.KprobeArgument {
	return &tetragon.KprobeArgument{Label: label, Arg: &tetragon.KprobeArgument_IntArg{IntArg: v}}
}

func stringData(label, v string) *tetragon.KprobeArgument {
	return &tetragon.KprobeArgument{Label: label, Arg: &tetragon.KprobeArgument_StringArg{StringArg: v}}
}

func bytesData(label string, v []byte) *tetragon.KprobeArgument {
	return &tetragon.KprobeArgument{Label: label, Arg: &tetragon.KprobeArgument_BytesArg{BytesArg: v}}
}

var unnameable = map[bpf.SensorWalkEnd]string{
	bpf.SensorWalkEndWALK_DETACHED: "its mount is nowhere in the file system any more",
	bpf.SensorWalkEndWALK_ESCAPED:  "its directory was moved out of a bind mount",
	bpf.SensorWalkEndWALK_TOO_LONG: "its path is longer than the kernel gives out",
	bpf.SensorWalkEndWALK_NO_NAME:  "it has no path: a memfd, or a file made in memory",
}

func (c *converter) execData(r *record) []*tetragon.KprobeArgument {
	if !c.policy.Details {
		return nil
	}
	data := []*tetragon.KprobeArgument{stringData(names.LabelFile, fileText(r))}
	if r.Flags&uint16(bpf.SensorFlagFLAG_SCRIPT) != 0 {
		data = append(data, intData(names.LabelScript, 1))
	}
	if !utf8.Valid(r.path) {
		data = append(data, bytesData(names.LabelPath, r.path))
	}
	if binary := r.binary(); !utf8.Valid(binary) {
		data = append(data, bytesData(names.LabelBinary, binary))
	}
	if why, ok := unnameable[bpf.SensorWalkEnd(r.Walk)]; ok {
		data = append(data, stringData(names.LabelUnnameable, why))
	}
	return data
}

// fileText is the identity of a file as names.LabelFile says. The kernel keeps
// a device as 12 bits of major and 20 of minor number; stat gives another form.
func fileText(r *record) string {
	dev := unix.Mkdev(r.Dev>>20, r.Dev&(1<<20-1))
	return fmt.Sprintf("%d:%d:%d:%d", dev, r.Ino, r.Size, r.CtimeSec*1e9+int64(r.CtimeNsec))
}

func (c *converter) socketData(r *record) []*tetragon.KprobeArgument {
	if !c.policy.Details {
		return nil
	}
	var data []*tetragon.KprobeArgument
	if len(r.path) > 0 {
		data = append(data, bytesData(names.LabelPath, r.path))
	}
	switch bpf.SensorMode(r.Listed) {
	case bpf.SensorModeMODE_MONITOR:
		data = append(data, stringData(names.LabelListed, "monitor"))
	case bpf.SensorModeMODE_ENFORCE:
		data = append(data, stringData(names.LabelListed, "enforce"))
	}
	if bpf.SensorKind(r.Kind) == bpf.SensorKindKIND_HELD {
		data = append(data, intData(names.LabelHeld, 1))
	}
	return data
}
