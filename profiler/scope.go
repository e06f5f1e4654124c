package profiler

import (
	"strconv"
	"strings"

	api "github.com/cilium/tetragon/api/v1/tetragon"

	"profile/store"
)

// container is what an agent tells of the container of a process.
type container struct {
	image, namespace, workload, name string
	pidns                            uint32
}

// Bounds of the scopes of a session, so that a machine on which containers come
// and go does not fill its database: a container without image and workload is
// another one each time. What is beyond them has one scope together.
const (
	maxScopes  = 1024
	maxNumbers = 128 // of scopes that are an ID or a number
)

// firstPIDNamespace is the inode number of the first pid namespace, in every
// kernel.
const firstPIDNamespace = 0xEFFFFFFC

// scope names where a process runs: the host, a container by its image and
// workload, else by the name the agent gives it, else by its pid namespace.
// A name can be none of the others', since each sort has its own beginning.
func (f *Fold) scope(p *api.Process) string {
	pidns := p.GetNs().GetPid()
	if p.GetPod() == nil && p.GetDocker() == "" && (pidns == nil || pidns.GetIsHost()) {
		return store.HostScope
	}
	c := container{name: p.GetDocker(), pidns: pidns.GetInum()}
	if pod := p.GetPod(); pod != nil {
		c = container{image: pod.GetContainer().GetImage().GetName(), namespace: pod.GetNamespace(), workload: pod.GetWorkload()}
		if c.workload == "" {
			c.workload = pod.GetName()
		}
	} else if c.name != "" {
		c.pidns = 0
	}
	return f.scopeOf(c)
}

// inNamespace is the scope of a process that the agent names no container of, by
// the pid namespace that is told of it, 0 if none is: a Tetragon does not know
// each container for one.
func (f *Fold) inNamespace(scope string, pid, pidns uint32) string {
	if scope != store.HostScope {
		return scope
	}
	if pidns == 0 && f.cfg.NamespaceOf != nil {
		pidns = f.cfg.NamespaceOf(pid)
	}
	if pidns == 0 || pidns == f.cfg.PIDNamespace {
		return store.HostScope
	}
	return f.scopeOf(container{pidns: pidns})
}

// unseenScope is the scope of a process whose exec was not told.
func (f *Fold) unseenScope(p *api.Process) string {
	return f.inNamespace(f.scope(p), p.GetPid().GetValue(), 0)
}

func (f *Fold) scopeOf(c container) string {
	name, ok := f.scopes[c]
	if ok {
		return name
	}
	number := c.image == "" && c.workload == ""
	if len(f.scopes) >= maxScopes || number && f.numbers >= maxNumbers {
		return store.OtherContainers
	}
	if number {
		f.numbers++
	}
	name = c.scope()
	f.scopes[c] = name
	return name
}

func (c container) scope() string {
	switch {
	case c.workload != "" || c.image != "":
		return fit("pod:" + c.namespace + "/" + c.workload + ":" + c.image)
	case c.name != "":
		return fit("container:" + c.name)
	}
	return "pidns:" + strconv.FormatUint(uint64(c.pidns), 10)
}

// fit makes a name fit for the store's keys.
func fit(s string) string {
	return strings.ReplaceAll(s[:min(len(s), maxPath)], "\x00", "\uFFFD")
}
