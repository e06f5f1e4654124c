package store

import "math"

// unpackEvidence fills e, which must be zero.
func (u *unpacker) unpackEvidence(value []byte, e *Evidence, bound int) error {
	u.rest, u.left, u.err = value, bound, nil
	u.fields(func(key byte) bool {
		switch key {
		case 'f':
			e.FirstSeen = u.time()
		case 'l':
			e.LastSeen = u.time()
		case 't':
			e.Files = unpackAll(u, unpackTally)
		case 'a':
			e.Attempts = unpackAll(u, unpackAttempt)
		default:
			return false
		}
		return true
	})
	if u.err == nil && len(u.rest) > 0 {
		u.err = errTrail
	}
	return u.err
}

func unpackString(u *unpacker, s *string) { *s = u.string() }
func unpackUint32(u *unpacker, v *uint32) { *v = uint32(u.uint(math.MaxUint32)) }

func unpackTally(u *unpacker, t *Tally) {
	u.fields(func(key byte) bool {
		switch key {
		case 'i':
			unpackFileID(u, &t.File)
		case 'f':
			t.FirstExec = u.time()
		case 'l':
			t.LastExec = u.time()
		case 's':
			t.Seen = u.uint(math.MaxUint64)
		case 'c':
			t.Complete = u.uint(math.MaxUint64)
		case 'u':
			t.Clean = u.uint(math.MaxUint64)
		case 'x':
			t.Crossed = u.uint(math.MaxUint64)
		case 'g':
			unpackGoing(u, &t.Going)
		case 'n':
			t.Unseen = unpackAll(u, unpackProcess)
		case 'N':
			t.UnseenCount = u.uint(math.MaxUint64)
		case 'e':
			t.Entries = unpackAll(u, unpackEntry)
		case 'w':
			t.Network = unpackAll(u, unpackUse)
		case 'r':
			t.Args = unpackAll(u, unpackString)
		default:
			return false
		}
		return true
	})
}

func unpackFileID(u *unpacker, id *FileID) {
	u.fields(func(key byte) bool {
		switch key {
		case 'd':
			id.Dev = u.uint(math.MaxUint64)
		case 'i':
			id.Ino = u.uint(math.MaxUint64)
		case 's':
			id.Size = u.int()
		case 'c':
			id.CtimeNS = u.int()
		default:
			return false
		}
		return true
	})
}

func unpackGoing(u *unpacker, g *Going) {
	u.fields(func(key byte) bool {
		switch key {
		case 'c':
			g.Clean = u.uint(math.MaxUint64)
		case 't':
			g.Touched = u.uint(math.MaxUint64)
		case 'o':
			g.Oldest = u.time()
		case 'n':
			g.Newest = u.time()
		case 'O':
			g.OldestAny = u.time()
		case 'M':
			g.NewestAny = u.time()
		default:
			return false
		}
		return true
	})
}

func unpackProcess(u *unpacker, p *Process) {
	u.fields(func(key byte) bool {
		switch key {
		case 'p':
			p.PID = uint32(u.uint(math.MaxUint32))
		case 's':
			p.Start = u.time()
		default:
			return false
		}
		return true
	})
}

func unpackEntry(u *unpacker, e *Entry) {
	u.fields(func(key byte) bool {
		switch key {
		case 'n':
			e.Name = u.string()
		case 'r':
			e.Runs = u.uint(math.MaxUint64)
		case 's':
			e.Script = u.bool()
		default:
			return false
		}
		return true
	})
}

func unpackUse(u *unpacker, n *Use) {
	u.fields(func(key byte) bool {
		switch key {
		case 'f':
			n.Family = u.word()
		case 't':
			n.Type = u.word()
		case 'r':
			n.Runs = u.uint(math.MaxUint64)
		case 'a':
			n.First = u.time()
		case 'z':
			n.Last = u.time()
		case 'p':
			n.Protocols = unpackAll(u, unpackUint32)
		case 'e':
			n.Reach = Reach(u.uint(math.MaxUint8))
		case 'd':
			n.Destinations = unpackAll(u, unpackString)
		case 'h':
			n.Inherited = u.uint(math.MaxUint64)
		default:
			return false
		}
		return true
	})
}

func unpackAttempt(u *unpacker, a *Attempt) {
	u.fields(func(key byte) bool {
		switch key {
		case 'f':
			a.Family = u.word()
		case 't':
			a.Type = u.word()
		case 's':
			a.Stage = u.word()
		case 'r':
			a.Count = u.uint(math.MaxUint64)
		case 'a':
			a.First = u.time()
		case 'z':
			a.Last = u.time()
		default:
			return false
		}
		return true
	})
}
