package sensor

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"slices"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"

	"golang.org/x/sys/unix"

	"profile/internal/cgroup"
	"profile/internal/sensor/bpf"
)

// ringBytes holds about 50,000 events of ordinary length: what two cores can
// produce in the longest pause of a reader that was measured (FACTS 36).
const ringBytes = 8 << 20

// record is one thing that the kernel told: the header, and the strings that
// follow it where there are any.
type record struct {
	bpf.SensorEvent
	path, name, args, cwd []byte
	address               netip.AddrPort // of a use
}

// observer is the kernel side of one audit policy: loaded, attached and read
// by this process, and gone with it.
type observer struct {
	hooks  hooks
	coll   *ebpf.Collection
	links  []link.Link
	reader *ringbuf.Reader
	counts *ebpf.Memory
}

// setScope sets the constants that tell a program whom its policy is about.
func setScope(spec *ebpf.CollectionSpec, group cgroup.Group, families []int32) error {
	var bits uint64
	for _, f := range families {
		bits |= 1 << f
	}
	for name, value := range map[string]any{
		"scope_id": group.ID, "scope_level": uint32(group.Level), "families": bits, "nr_socket": int64(unix.SYS_SOCKET),
	} {
		if err := setVariable(spec, name, value); err != nil {
			return err
		}
	}
	return nil
}

func setVariable(spec *ebpf.CollectionSpec, name string, value any) error {
	v, ok := spec.Variables[name]
	if !ok {
		return fmt.Errorf("the object has no variable %s", name)
	}
	if err := v.Set(value); err != nil {
		return fmt.Errorf("set variable %s: %w", name, err)
	}
	return nil
}

// subset drops what is not asked for, so that it is neither loaded nor verified.
func subset(spec *ebpf.CollectionSpec, programs, maps []string) {
	keep := func(names []string) map[string]bool {
		m := map[string]bool{}
		for _, n := range names {
			m[n] = true
		}
		return m
	}
	p, m := keep(programs), keep(append(maps, ".rodata"))
	for name := range spec.Programs {
		if !p[name] {
			delete(spec.Programs, name)
		}
	}
	for name := range spec.Maps {
		if !m[name] {
			delete(spec.Maps, name)
		}
	}
	for name, v := range spec.Variables {
		if !v.Constant() && !m[".bss"] {
			delete(spec.Variables, name)
		}
	}
}

// loadObserver loads the programs of an audit policy. Nothing is attached yet.
func loadObserver(h hooks, group cgroup.Group, p *Policy, ring uint32, shared *sharedMaps) (*observer, error) {
	spec, err := loadObject()
	if err != nil {
		return nil, err
	}
	programs := append([]string{"observe_exec", "observe_fork", "observe_exit", "observe_task", "observe_file"}, h.observe...)
	if h.cgroup {
		programs = append(programs, "observe_socket")
	}
	if group.Level > 0 {
		programs = append(programs, "observe_move")
	}
	if !p.uses() {
		h.uses = nil
	}
	programs = slices.AppendSeq(programs, maps.Keys(h.uses))
	subset(spec, programs,
		[]string{"lists", "prefixes", "scopes", "epoch", "walks", "builds", "iter_build", "events", "delivered", "told", ".bss"})
	if err := setScope(spec, group, p.Families); err != nil {
		return nil, err
	}
	spec.Maps["events"].MaxEntries = ring
	coll, err := loadCollection(spec, shared.replacements("lists", "prefixes", "scopes", "epoch"))
	if err != nil {
		return nil, fmt.Errorf("load the sensor's programs: %w", err)
	}
	o := &observer{hooks: h, coll: coll}
	if o.reader, err = ringbuf.NewReader(coll.Maps["events"]); err != nil {
		return nil, errors.Join(fmt.Errorf("open the event ring: %w", err), o.close())
	}
	if o.counts, err = coll.Maps["delivered"].Memory(); err != nil {
		return nil, errors.Join(fmt.Errorf("map the counters: %w", err), o.close())
	}
	return o, nil
}

// attachProcesses attaches the exec, fork and exit hooks.
func (o *observer) attachProcesses() error {
	names := []string{"observe_exec", "observe_fork", "observe_exit"}
	if o.coll.Programs["observe_move"] != nil {
		names = append(names, "observe_move")
	}
	return o.attachTracing(names...)
}

// attachSockets attaches the socket hooks; that of cgroups to a directory. What
// a socket is used for is told to the cgroup in which it was opened, which can
// be any: those are attached to the root.
func (o *observer) attachSockets(dir string) error {
	root, err := cgroup.Root()
	if err != nil {
		return err
	}
	if o.hooks.cgroup {
		if err := o.attachCgroup(dir, "observe_socket", ebpf.AttachCGroupInetSockCreate); err != nil {
			return err
		}
	}
	for name, place := range o.hooks.uses {
		var err error
		if place == ebpf.AttachNone {
			err = o.attachTracing(name)
		} else {
			err = o.attachCgroup(root.Dir, name, place)
		}
		if err != nil {
			return err
		}
	}
	return o.attachTracing(o.hooks.observe...)
}

func (o *observer) attachCgroup(dir, name string, place ebpf.AttachType) error {
	l, err := attachCgroup(dir, place, o.coll.Programs[name])
	if err == nil {
		o.links = append(o.links, l)
	}
	return err
}

func (o *observer) attachTracing(names ...string) error {
	for _, name := range names {
		l, err := link.AttachTracing(link.TracingOptions{Program: o.coll.Programs[name]})
		if err != nil {
			return fmt.Errorf("attach %s: %w", name, err)
		}
		o.links = append(o.links, l)
	}
	return nil
}

func attachCgroup(dir string, place ebpf.AttachType, prog *ebpf.Program) (link.Link, error) {
	l, err := link.AttachCgroup(link.CgroupOptions{Path: dir, Attach: place, Program: prog})
	if errors.Is(err, os.ErrPermission) {
		return nil, fmt.Errorf("attach to cgroup %q: another program there was attached without BPF_F_ALLOW_MULTI and keeps ours out: %w", dir, err)
	}
	if err != nil {
		return nil, fmt.Errorf("attach to cgroup %q: %w", dir, err)
	}
	return l, nil
}

// iterate runs an iterator and returns what it wrote.
func (o *observer) iterate(name string) ([]record, error) {
	it, err := link.AttachIter(link.IterOptions{Program: o.coll.Programs[name]})
	if err != nil {
		return nil, fmt.Errorf("attach iterator %s: %w", name, err)
	}
	defer it.Close()
	r, err := it.Open()
	if err != nil {
		return nil, fmt.Errorf("open iterator %s: %w", name, err)
	}
	defer r.Close()
	raw, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("read iterator %s: %w", name, err)
	}
	var records []record
	for len(raw) > 0 {
		var rec record
		n, err := rec.decode(raw)
		if err != nil {
			return nil, fmt.Errorf("read iterator %s: %w", name, err)
		}
		records = append(records, rec)
		raw = raw[n:]
	}
	return records, nil
}

// headSize is the size of the header that every record has. It has no gaps, in
// C or in Go, which the generated type says of itself.
const headSize = int(unsafe.Sizeof(bpf.SensorEvent{}))

// decode reads one record and returns its length. The strings point into raw.
func (r *record) decode(raw []byte) (int, error) {
	if len(raw) < headSize {
		return 0, fmt.Errorf("a record of %d bytes is shorter than its header", len(raw))
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&r.SensorEvent)), headSize), raw)
	at := headSize
	for _, part := range []struct {
		to  *[]byte
		len uint16
	}{{&r.path, r.PathLen}, {&r.name, r.NameLen}, {&r.args, r.ArgsLen}, {&r.cwd, r.CwdLen}} {
		end := at + int(part.len)
		if end > len(raw) {
			return 0, fmt.Errorf("a record of %d bytes says that it holds %d", len(raw), end)
		}
		*part.to = raw[at:end]
		at = end
	}
	return at, r.decodeAddress(raw)
}

// decodeAddress reads what follows the room for a path in a struct use_event.
func (r *record) decodeAddress(raw []byte) error {
	switch bpf.SensorKind(r.Kind) {
	case bpf.SensorKindKIND_CONNECT, bpf.SensorKindKIND_BIND, bpf.SensorKindKIND_SEND,
		bpf.SensorKindKIND_HANDED_SEND, bpf.SensorKindKIND_HANDED_RECV:
	default:
		return nil
	}
	const ipBytes = 16
	at := headSize + maxPath + 1
	if len(raw) < at+ipBytes+2 {
		return fmt.Errorf("a record of %d bytes has no room for an address", len(raw))
	}
	ip := netip.AddrFrom16([ipBytes]byte(raw[at : at+ipBytes]))
	if r.Family == unix.AF_INET {
		ip = netip.AddrFrom4([4]byte(raw[at : at+4]))
	}
	r.address = netip.AddrPortFrom(ip, binary.NativeEndian.Uint16(raw[at+ipBytes:]))
	return nil
}

// read waits for the next record until deadline. The record's strings are
// valid until the next call. os.ErrDeadlineExceeded says that nothing came,
// os.ErrClosed that the observer was closed.
func (o *observer) read(raw *ringbuf.Record, rec *record, deadline time.Time) error {
	o.reader.SetDeadline(deadline)
	if err := o.reader.ReadInto(raw); err != nil {
		if errors.Is(err, ringbuf.ErrClosed) {
			return os.ErrClosed
		}
		return err
	}
	_, err := rec.decode(bytes.Clone(raw.RawSample))
	return err
}

// lost counts the records, of every kind, that the ring had no room for.
func (o *observer) lost() (uint64, error) {
	var raw [int(bpf.SensorKindKINDS) * 16]byte // struct count: posted, lost
	if _, err := o.counts.ReadAt(raw[:], 0); err != nil {
		return 0, fmt.Errorf("read the counters: %w", err)
	}
	var lost uint64
	for at := 8; at < len(raw); at += 16 {
		lost += binary.NativeEndian.Uint64(raw[at:])
	}
	return lost, nil
}

// missed counts how often the kernel left a program out, as it does for as long
// as that was interrupted in another process on the same processor.
func (o *observer) missed() (uint64, error) {
	var missed uint64
	for name, program := range o.coll.Programs {
		stats, err := program.Stats()
		if err != nil {
			return 0, fmt.Errorf("ask the kernel what %s has missed: %w", name, err)
		}
		missed += stats.RecursionMisses
	}
	return missed, nil
}

// detach removes every hook; what is in the ring can still be read.
func (o *observer) detach() error {
	var errs []error
	for _, l := range o.links {
		errs = append(errs, l.Close())
	}
	o.links = nil
	return errors.Join(errs...)
}

func (o *observer) close() error {
	err := o.detach()
	if o.reader != nil {
		err = errors.Join(err, o.reader.Close())
	}
	o.coll.Close()
	return err
}
