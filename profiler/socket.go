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
	typ      socketType
	stage    string
	protocol uint32 // of a socket that is opened
	at       int64

	used        bool // not opened, but used, whoever opened it
	reach       store.Reach
	destination string // of ReachOut and ReachPeer
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
	if r := f.opener(k, path, at); r != nil {
		f.beat(r, beatSocket)
		f.note(r, u)
	}
}

// opener is the run that an event about a socket is of: that of the image which
// the process has now, or of one that is not known, under the path that the
// agent gives, else its name as executed.
func (f *Fold) opener(k *api.ProcessKprobe, label []byte, at int64) *run {
	q := f.lookup(k.GetProcess(), at)
	switch {
	case q == nil:
	case f.sameImage(k.GetProcess(), q):
		return q.run
	case nanos(k.GetProcess().GetStartTime()) > q.start:
		f.lostEnd(k.GetProcess().GetPid().GetValue(), q, at) // else it is of an image that went before
	}
	if f.isOwnCanary(k.GetProcess()) {
		return nil // it has ended, or its exec is lost: it has not come back then
	}
	path, _, _ := strings.Cut(string(label), "\x00") // only here, since it allocates
	if path == "" {
		path = absolute(k.GetProcess().GetBinary(), k.GetProcess().GetCwd())
	}
	if path == "" {
		return nil // a gap already: the agent did not name it
	}
	return f.adopt(k, path, at)
}

// note counts a socket of a run, at once or when its executable is known.
func (f *Fold) note(r *run, u use) {
	if r.of != nil {
		f.use(r, u)
		if !r.adopted {
			return
		}
		// Its exec may be told yet.
	}
	same := func(o use) bool {
		return o.typ == u.typ && o.stage == u.stage && o.used == u.used && o.reach == u.reach && o.destination == u.destination
	}
	if len(r.sockets) < maxSockets && !slices.ContainsFunc(r.sockets, same) {
		r.sockets = append(r.sockets, u)
	}
}

// maxSockets bounds the uses of a run whose executable is not known yet: each
// family and type, in either stage and without.
const maxSockets = 3 * 128

// readSocket reads the arguments and labels of a socket event. It is not ok if
// its family is not network.
func (f *Fold) readSocket(k *api.ProcessKprobe, at int64) (u use, path []byte, ok bool) {
	u.at = at
	if len(k.GetArgs()) < 2 {
		return u, nil, false
	}
	family := slices.Index(f.number, k.Args[0].GetIntArg())
	if family < 0 {
		return u, nil, false
	}
	f.families |= 1 << family
	u.typ = socketType(family)*typeCount + socketType(k.Args[1].GetIntArg()&(typeCount-1))
	if len(k.Args) > 2 {
		u.protocol = uint32(k.Args[2].GetIntArg())
	}
	u.stage, path = readLabels(k)
	return u, path, true
}

// readLabels gives what the sensor says of an event about a socket: the stage
// of the generation that lists the process, "" if none does, and the path of
// its executable.
func readLabels(k *api.ProcessKprobe) (stage string, path []byte) {
	for _, d := range k.GetData() {
		switch d.GetLabel() {
		case tetragon.LabelListed:
			stage = store.StageEnforce
			if d.GetStringArg() == store.StageMonitor {
				stage = store.StageMonitor
			}
		case tetragon.LabelPath:
			path = d.GetBytesArg()
		}
	}
	return stage, path
}

// use counts a socket of a run whose executable is known. A listed one is an
// attempt, and never evidence.
func (f *Fold) use(r *run, u use) {
	if r.canary {
		return
	}
	ex := r.of.ex
	f.observed(ex, u.at)
	if u.stage == "" && len(f.listed) > 0 {
		var generation uint64
		if u.stage, generation = f.stageOf(ex.key, r.amongHosts); u.stage != "" {
			f.take(r, u, generation)
		}
	}
	if u.stage != "" {
		if !u.used { // it is killed for opening one, and not for using another
			ex.attempt(u)
		}
		return
	}
	if !ex.network {
		ex.network = true
		if ex.kind == kindEvidence {
			f.counts.Network++
		}
	}
	ex.used = max(ex.used, u.at)
	ex.sockets++
	n := r.of.use(u)
	word, bit := u.typ/64, uint64(1)<<(u.typ%64)
	n.notice(u)
	switch {
	case r.used[word]&bit == 0:
		r.used[word] |= bit
		n.runs++
		if u.used && r.pid != 0 { // without its exec, what it opened was not told either
			n.inherited++
			r.hand(word, bit, u.at)
		}
	case !u.used && r.handed[word]&bit != 0 && u.at <= r.handedAt:
		r.handed[word] &^= bit // its opening was told late (FACTS 50)
		n.inherited--
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
	path, known := f.nameOf(p, path)
	if !known {
		f.unknownUse++
	}
	r := f.begin(at)
	r.seen, r.unseen = false, false
	f.attach(r, f.executable(store.Key{Scope: f.unseenScope(p), Path: path}).tally(""))
	r.of.live--
	return r
}
