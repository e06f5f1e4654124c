package store

import (
	"encoding/binary"
	"time"

	"github.com/vmihailenco/msgpack/v5/msgpcode"
)

// Evidence and generations are packed and unpacked by hand: with reflection that
// takes most of the time of a flush, of a report and of enforcing. What is written is byte for byte what
// the library writes by the tags of the types, to which a test holds it.

// packer appends msgpack values to a buffer.
type packer struct {
	buf   []byte
	count int // of the elements of all arrays and maps, as checkValue counts them
}

// packedMap is a map of at most 15 fields that is being packed. It counts
// them, since fields that are empty are left out.
type packedMap struct {
	*packer
	at int // of its header
}

func (p *packer) begin() packedMap {
	p.buf = append(p.buf, msgpcode.FixedMapLow)
	return packedMap{p, len(p.buf) - 1}
}

func (m packedMap) key(k byte) {
	m.buf[m.at]++
	m.count += 2
	m.packer.buf = append(m.buf, msgpcode.FixedStrLow|1, k)
}

func (m packedMap) uint(k byte, v uint64) {
	if v != 0 {
		m.key(k)
		m.packer.uint(v)
	}
}

func (m packedMap) int(k byte, v int64) {
	if v != 0 {
		m.key(k)
		m.packer.int(v)
	}
}

func (m packedMap) time(k byte, v time.Time) {
	if !v.IsZero() {
		m.key(k)
		m.packer.time(v)
	}
}

func (m packedMap) bool(k byte, v bool) {
	if v {
		m.key(k)
		m.buf = append(m.buf, msgpcode.True)
	}
}

// packArray packs a field that is left out where it is empty.
func packArray[T any](m packedMap, k byte, all []T, pack func(*packer, *T)) {
	if len(all) == 0 {
		return
	}
	m.key(k)
	packAll(m.packer, all, pack)
}

func packAll[T any](p *packer, all []T, pack func(*packer, *T)) {
	if all == nil {
		p.buf = append(p.buf, msgpcode.Nil)
		return
	}
	p.count += len(all)
	p.length(len(all), 16, msgpcode.FixedArrayLow, msgpcode.Array16, msgpcode.Array32)
	for i := range all {
		pack(p, &all[i])
	}
}

// length packs the header of what has a length: in one byte below few.
func (p *packer) length(n, few int, fixed, two, four byte) {
	switch {
	case n < few:
		p.buf = append(p.buf, fixed|byte(n))
	case n < 1<<16:
		p.buf = binary.BigEndian.AppendUint16(append(p.buf, two), uint16(n))
	default:
		p.buf = binary.BigEndian.AppendUint32(append(p.buf, four), uint32(n))
	}
}

func (p *packer) uint(v uint64) {
	switch {
	case v < 1<<7:
		p.buf = append(p.buf, byte(v))
	case v < 1<<8:
		p.buf = append(p.buf, msgpcode.Uint8, byte(v))
	case v < 1<<16:
		p.buf = binary.BigEndian.AppendUint16(append(p.buf, msgpcode.Uint16), uint16(v))
	case v < 1<<32:
		p.buf = binary.BigEndian.AppendUint32(append(p.buf, msgpcode.Uint32), uint32(v))
	default:
		p.buf = binary.BigEndian.AppendUint64(append(p.buf, msgpcode.Uint64), v)
	}
}

func (p *packer) int(v int64) {
	switch {
	case v >= 0:
		p.uint(uint64(v))
	case v >= -1<<5:
		p.buf = append(p.buf, byte(v))
	case v >= -1<<7:
		p.buf = append(p.buf, msgpcode.Int8, byte(v))
	case v >= -1<<15:
		p.buf = binary.BigEndian.AppendUint16(append(p.buf, msgpcode.Int16), uint16(v))
	case v >= -1<<31:
		p.buf = binary.BigEndian.AppendUint32(append(p.buf, msgpcode.Int32), uint32(v))
	default:
		p.buf = binary.BigEndian.AppendUint64(append(p.buf, msgpcode.Int64), uint64(v))
	}
}

func (p *packer) string(s string) {
	if n := len(s); n >= 32 && n < 1<<8 {
		p.buf = append(p.buf, msgpcode.Str8, byte(n))
	} else {
		p.length(n, 32, msgpcode.FixedStrLow, msgpcode.Str16, msgpcode.Str32)
	}
	p.buf = append(p.buf, s...)
}

// time packs the shortest of the three forms that holds it.
func (p *packer) time(t time.Time) {
	const id = 0x100 + timestamp // as a byte
	sec, nsec := uint64(t.Unix()), uint64(t.Nanosecond())
	switch whole := nsec<<34 | sec; {
	case sec >= 1<<34:
		p.buf = binary.BigEndian.AppendUint32(append(p.buf, msgpcode.Ext8, 12, id), uint32(nsec))
		p.buf = binary.BigEndian.AppendUint64(p.buf, sec)
	case whole < 1<<32:
		p.buf = binary.BigEndian.AppendUint32(append(p.buf, msgpcode.FixExt4, id), uint32(whole))
	default:
		p.buf = binary.BigEndian.AppendUint64(append(p.buf, msgpcode.FixExt8, id), whole)
	}
}

func packString(p *packer, s *string) { p.string(*s) }
func packUint32(p *packer, v *uint32) { p.uint(uint64(*v)) }

func packEvidence(p *packer, e *Evidence) {
	m := p.begin()
	m.key('f')
	p.time(e.FirstSeen)
	m.key('l')
	p.time(e.LastSeen)
	m.key('t')
	packAll(p, e.Files, packTally)
	packArray(m, 'a', e.Attempts, packAttempt)
}

func packFileID(p *packer, id FileID) {
	m := p.begin()
	m.uint('d', id.Dev)
	m.uint('i', id.Ino)
	m.int('s', id.Size)
	m.int('c', id.CtimeNS)
}

func packTally(p *packer, t *Tally) {
	m := p.begin()
	m.key('i')
	packFileID(p, t.File)
	m.time('f', t.FirstExec)
	m.time('l', t.LastExec)
	m.uint('s', t.Seen)
	m.uint('c', t.Complete)
	m.uint('u', t.Clean)
	m.uint('x', t.Crossed)
	if t.Going != (Going{}) {
		m.key('g')
		packGoing(p, &t.Going)
	}
	packArray(m, 'n', t.Unseen, packProcess)
	m.uint('N', t.UnseenCount)
	packArray(m, 'e', t.Entries, packEntry)
	packArray(m, 'w', t.Network, packUse)
	packArray(m, 'r', t.Args, packString)
}

func packGoing(p *packer, g *Going) {
	m := p.begin()
	m.uint('c', g.Clean)
	m.uint('t', g.Touched)
	m.time('o', g.Oldest)
	m.time('n', g.Newest)
	m.time('O', g.OldestAny)
	m.time('M', g.NewestAny)
}

func packProcess(p *packer, one *Process) {
	m := p.begin()
	m.key('p')
	p.uint(uint64(one.PID))
	m.key('s')
	p.time(one.Start)
}

func packEntry(p *packer, e *Entry) {
	m := p.begin()
	m.key('n')
	p.string(e.Name)
	m.key('r')
	p.uint(e.Runs)
	m.bool('s', e.Script)
}

func packUse(p *packer, u *Use) {
	m := p.begin()
	m.key('f')
	p.string(u.Family)
	m.key('t')
	p.string(u.Type)
	m.key('r')
	p.uint(u.Runs)
	m.key('a')
	p.time(u.First)
	m.key('z')
	p.time(u.Last)
	packArray(m, 'p', u.Protocols, packUint32)
	m.uint('e', uint64(u.Reach))
	packArray(m, 'd', u.Destinations, packString)
	m.uint('h', u.Inherited)
}

func packAttempt(p *packer, a *Attempt) {
	m := p.begin()
	m.key('f')
	p.string(a.Family)
	m.key('t')
	p.string(a.Type)
	m.key('s')
	p.string(a.Stage)
	m.key('r')
	p.uint(a.Count)
	m.key('a')
	p.time(a.First)
	m.key('z')
	p.time(a.Last)
}
