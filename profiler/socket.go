package profiler

import (
	"slices"
	"strings"

	api "github.com/cilium/tetragon/api/v1/tetragon"

	"profile/internal/tetragon"
	"profile/store"
)

// socketType is a socket's family and type: the place of the family in the fold's
// names times typeCount, plus the type.
type socketType uint8

const typeCount = 16 // SOCK_TYPE_MASK

// use is a socket, or an attempt at one if it has a stage.
type use struct {
	typ   socketType
	stage string
	at    int64
}

func (f *Fold) typeName(s socketType) (family, typ string) {
	return f.names[s/typeCount], tetragon.TypeName(int32(s % typeCount))
}

// Families names those of which a socket was seen.
func (f *Fold) Families() []string {
	var seen []string
	for i, name := range f.names {
		if f.families&(1<<i) != 0 {
			seen = append(seen, name)
		}
	}
	return seen
}

// socket counts a socket for the image that its process has now, before the
// window opens as well.
func (f *Fold) socket(k *api.ProcessKprobe, at int64) {
	u, path, ok := f.readSocket(k, at)
	if !ok {
		return
	}
	var r *run
	if q := f.lookup(k.GetProcess(), at); q != nil {
		r = q.run
	} else {
		if path == "" {
			path = absolute(k.GetProcess().GetBinary(), k.GetProcess().GetCwd())
		}
		if path == "" {
			return // a gap already: the agent did not name it
		}
		r = f.adopt(k, path, at)
	}
	f.beat(r, beatSocket)
	if r.of != nil {
		f.use(r, u)
		return
	}
	if len(r.sockets) < maxSockets && !slices.ContainsFunc(r.sockets, func(o use) bool { return o.typ == u.typ && o.stage == u.stage }) {
		r.sockets = append(r.sockets, u)
	}
}

// maxSockets bounds the uses of a run whose executable is not known yet: each
// family and type, in either stage and without.
const maxSockets = 3 * 128

// readSocket reads the arguments and labels of a socket event. It is not ok if
// its family is not network.
func (f *Fold) readSocket(k *api.ProcessKprobe, at int64) (u use, path string, ok bool) {
	u.at = at
	if len(k.GetArgs()) < 2 {
		return u, "", false
	}
	family := slices.Index(f.number, k.Args[0].GetIntArg())
	if family < 0 {
		return u, "", false
	}
	f.families |= 1 << family
	u.typ = socketType(family)*typeCount + socketType(k.Args[1].GetIntArg()&(typeCount-1))
	for _, d := range k.GetData() {
		switch d.GetLabel() {
		case tetragon.LabelListed:
			u.stage = store.StageEnforce
			if d.GetStringArg() == store.StageMonitor {
				u.stage = store.StageMonitor
			}
		case tetragon.LabelPath:
			path, _, _ = strings.Cut(string(d.GetBytesArg()), "\x00")
		}
	}
	return u, path, true
}

// use counts a socket of a run whose executable is known. A listed one is an
// attempt, and never evidence.
func (f *Fold) use(r *run, u use) {
	if r.canary {
		return
	}
	ex := r.of.ex
	f.observed(ex, u.at)
	if u.stage != "" {
		ex.attempt(u)
		return
	}
	if !ex.network {
		ex.network = true
		if ex.kind == kindEvidence {
			f.counts.Network++
		}
	}
	n := r.of.use(u)
	word, bit := u.typ/64, uint64(1)<<(u.typ%64)
	if r.used[word]&bit == 0 {
		r.used[word] |= bit
		n.runs++
	}
}

// settleSockets counts what a run did before its executable was known.
func (f *Fold) settleSockets(r *run) {
	for _, u := range r.sockets {
		f.use(r, u)
	}
	r.sockets = r.sockets[:0]
}

// bystander counts for a process that cannot be in the table, since another
// one has its pid: an event that came late.
func (f *Fold) bystander(p *api.Process, path string, at int64) *run {
	r := f.begin(at)
	r.seen, r.unseen = false, false
	f.attach(r, f.executable(store.Key{Scope: f.scope(p), Path: path}).tally(""))
	r.of.live--
	return r
}
