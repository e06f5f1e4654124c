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
	name, ok := f.scopes[c]
	if !ok {
		name = c.scope()
		f.scopes[c] = name
	}
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
