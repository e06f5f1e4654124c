package main

import (
	"encoding/base64"
	"fmt"
	"time"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	names "profile/internal/tetragon"
)

const (
	streamPolicy = names.LearnPrefix + "bench"
	streamCanary = "/run/bench/canary"
	shellPID     = 1000
	firstPID     = 2000
	lastPID      = 32000
)

// machineStream makes up what the sensor sends of a busy machine: a shell
// starts one program after the other, each of which is forked, executes, may
// open a socket, and exits. Every tenth of a second it tells of one run.
type machineStream struct {
	executables int
	send        func(*tetragon.GetEventsResponse) error
	now         time.Time
	runs        int
	shell       *tetragon.Process
}

func newMachineStream(executables int, send func(*tetragon.GetEventsResponse) error) *machineStream {
	s := &machineStream{executables: executables, send: send, now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	s.shell = s.process(shellPID, "/usr/bin/dash", "procFS", nil)
	return s
}

func (s *machineStream) process(pid uint32, binary, flags string, parent *tetragon.Process) *tetragon.Process {
	return &tetragon.Process{
		ExecId: base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "machine:%d:%d", s.now.UnixNano(), pid)),
		Pid:    wrapperspb.UInt32(pid), Tid: wrapperspb.UInt32(pid), Uid: wrapperspb.UInt32(0), Auid: wrapperspb.UInt32(4294967295),
		Cwd: "/srv/work/some/where", Binary: binary, Arguments: "--some arguments of a program", Flags: flags,
		StartTime: timestamppb.New(s.now), ParentExecId: parent.GetExecId(),
		Ns: &tetragon.Namespaces{Pid: &tetragon.Namespace{Inum: 4026531836, IsHost: true}},
	}
}

func (s *machineStream) emit(ev *tetragon.GetEventsResponse) error {
	s.now = s.now.Add(time.Millisecond)
	ev.Time, ev.NodeName = timestamppb.New(s.now), "machine"
	return s.send(ev)
}

func (s *machineStream) kprobe(p, parent *tetragon.Process, call string, args, data []*tetragon.KprobeArgument) error {
	return s.emit(&tetragon.GetEventsResponse{Event: &tetragon.GetEventsResponse_ProcessKprobe{ProcessKprobe: &tetragon.ProcessKprobe{
		Process: p, Parent: parent, FunctionName: call, Args: args, Data: data, PolicyName: streamPolicy,
		Action: tetragon.KprobeAction_KPROBE_ACTION_POST, ReturnAction: tetragon.KprobeAction_KPROBE_ACTION_POST}}})
}

func number32(v int32) *tetragon.KprobeArgument {
	return &tetragon.KprobeArgument{Arg: &tetragon.KprobeArgument_IntArg{IntArg: v}}
}

// run tells of one run, of 4 or 5 events.
func (s *machineStream) run(path string, socket bool) error {
	pid := uint32(firstPID + s.runs%(lastPID-firstPID))
	s.runs++
	child := number32(int32(pid))
	err := s.kprobe(s.shell, nil, names.CallFork, []*tetragon.KprobeArgument{child, child}, nil)
	forked := s.process(pid, s.shell.Binary, "execve", s.shell)
	if err == nil {
		file := fmt.Sprintf("64768:%d:123456:1790000000123456789", len(path)+s.runs%s.executables)
		err = s.kprobe(forked, s.shell, names.CallExec, []*tetragon.KprobeArgument{{Arg: &tetragon.KprobeArgument_LinuxBinprmArg{
			LinuxBinprmArg: &tetragon.KprobeLinuxBinprm{Path: path}}}},
			[]*tetragon.KprobeArgument{{Label: names.LabelFile, Arg: &tetragon.KprobeArgument_StringArg{StringArg: file}}})
	}
	image := s.process(pid, path, "execve clone", s.shell)
	if err == nil {
		err = s.emit(&tetragon.GetEventsResponse{Event: &tetragon.GetEventsResponse_ProcessExec{
			ProcessExec: &tetragon.ProcessExec{Process: image, Parent: s.shell}}})
	}
	if err == nil && socket {
		err = s.kprobe(image, s.shell, names.CallSocketCreate,
			[]*tetragon.KprobeArgument{number32(2), number32(2), number32(0), number32(0)},
			[]*tetragon.KprobeArgument{{Label: names.LabelPath, Arg: &tetragon.KprobeArgument_BytesArg{BytesArg: []byte(path)}}})
	}
	if err == nil {
		err = s.emit(&tetragon.GetEventsResponse{Event: &tetragon.GetEventsResponse_ProcessExit{
			ProcessExit: &tetragon.ProcessExit{Process: image, Parent: s.shell, Time: timestamppb.New(s.now)}}})
	}
	return err
}

// tell opens the window with a canary and goes on until send fails.
func (s *machineStream) tell() error {
	err := s.emit(&tetragon.GetEventsResponse{Event: &tetragon.GetEventsResponse_ProcessExec{
		ProcessExec: &tetragon.ProcessExec{Process: s.shell}}})
	for i := 0; err == nil; i++ {
		if i%10000 == 0 {
			err = s.canary()
		}
		if err == nil {
			n := i % s.executables
			err = s.run(toolPath(n), n%4 == 0)
		}
	}
	return err
}

// toolPath is the path of one of the executables of a made up machine.
func toolPath(n int) string {
	return fmt.Sprintf("/usr/lib/x86_64-linux-gnu/some-package-%04d/libexec/helper-%06d", n%1000, n)
}

// canary is one, with the child that it forks.
func (s *machineStream) canary() error {
	pid := uint32(lastPID + 1)
	p := s.process(pid, streamCanary, "execve clone", s.shell)
	child := number32(int32(pid + 1))
	forked := s.process(pid+1, streamCanary, "execve", p)
	steps := []func() error{
		func() error {
			return s.kprobe(s.process(pid, "/usr/bin/dash", "execve", s.shell), s.shell, names.CallExec,
				[]*tetragon.KprobeArgument{{Arg: &tetragon.KprobeArgument_LinuxBinprmArg{LinuxBinprmArg: &tetragon.KprobeLinuxBinprm{Path: streamCanary}}}}, nil)
		},
		func() error {
			return s.emit(&tetragon.GetEventsResponse{Event: &tetragon.GetEventsResponse_ProcessExec{
				ProcessExec: &tetragon.ProcessExec{Process: p, Parent: s.shell}}})
		},
		func() error {
			return s.kprobe(p, s.shell, names.CallFork, []*tetragon.KprobeArgument{child, child}, nil)
		},
		func() error {
			return s.emit(&tetragon.GetEventsResponse{Event: &tetragon.GetEventsResponse_ProcessExit{ProcessExit: &tetragon.ProcessExit{Process: forked, Parent: p}}})
		},
		func() error {
			return s.kprobe(p, s.shell, names.CallSocketCreate, []*tetragon.KprobeArgument{number32(2), number32(2), number32(0), number32(0)}, nil)
		},
		func() error {
			return s.emit(&tetragon.GetEventsResponse{Event: &tetragon.GetEventsResponse_ProcessExit{ProcessExit: &tetragon.ProcessExit{Process: p, Parent: s.shell}}})
		},
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}
