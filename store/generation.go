package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/vmihailenco/msgpack/v5/msgpcode"
)

// A generation lists thousands of paths. Where only its state is asked for it is
// read no further than that.

// GenerationState is what a generation begins with.
type GenerationState struct {
	N     uint64
	Dir   string
	State string
}

// GenerationStates gives the state of each generation, sorted by number. It
// reads no more of them.
func (tx *Tx) GenerationStates() ([]GenerationState, error) {
	return collect(scan(tx.generations, nil, func(key, value []byte, g *GenerationState) error {
		return readGeneration(key, func() (uint64, error) {
			err := tx.codec.unpackState(value, g)
			return g.N, err
		})
	}))
}

// Generation gives one generation, nil if there is none of that number.
func (tx *Tx) Generation(n uint64) (*Generation, error) {
	var g *Generation
	err := guard(func() error {
		key := generationKey(n)
		if value := tx.generations.Get(key); value != nil {
			g = new(Generation)
			return tx.decodeGeneration(key, value, g)
		}
		return nil
	})
	return g, err
}

// Generations gives all generations, sorted by number.
func (tx *Tx) Generations() ([]Generation, error) {
	return collect(scan(tx.generations, nil, tx.decodeGeneration))
}

// NextGeneration gives the number after the highest one stored, from 1.
func (tx *Tx) NextGeneration() (uint64, error) {
	var next uint64 = 1
	err := guard(func() error {
		if key, _ := tx.generations.Cursor().Last(); key != nil {
			if len(key) != 8 {
				return fmt.Errorf("read generation %.20q: that is no number", key)
			}
			next = binary.BigEndian.Uint64(key) + 1
		}
		return nil
	})
	return next, err
}

// PutGeneration writes a generation, in place of what was there under its
// number, which must not be 0.
func (tx *Tx) PutGeneration(g *Generation) error {
	err := errors.New("it has no number")
	if g.N != 0 {
		err = tx.put(tx.generations, generationKey(g.N), g, maxOther)
	}
	if err != nil {
		return fmt.Errorf("store generation %d: %w", g.N, err)
	}
	return nil
}

func generationKey(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func (tx *Tx) decodeGeneration(key, value []byte, g *Generation) error {
	return readGeneration(key, func() (uint64, error) {
		err := tx.codec.decode(value, g, maxOther)
		return g.N, err
	})
}

// readGeneration checks that what is read under a key is of that number.
func readGeneration(key []byte, read func() (uint64, error)) error {
	n, err := read()
	if err == nil && !bytes.Equal(key, generationKey(n)) {
		err = fmt.Errorf("it says it is %d", n)
	}
	if err != nil {
		return fmt.Errorf("read generation %.20q: %w", key, err)
	}
	return nil
}

// unpackState reads a generation up to its state.
func (u *unpacker) unpackState(value []byte, g *GenerationState) error {
	u.rest, u.left, u.err = value, maxOther, nil
	for range u.mapLength() {
		switch string(u.bytes()) {
		case "n":
			g.N = u.uint(math.MaxUint64)
		case "dir":
			g.Dir = u.string()
		case "state":
			g.State = u.string()
			return u.err
		default:
			u.pass()
		}
	}
	return u.err
}

func packGeneration(p *packer, g *Generation) {
	fields := 11
	for _, there := range []bool{g.Dir != "", len(g.Files) > 0, g.AcceptGaps, !g.LearnedSince.IsZero(), g.Wider, len(g.Sessions) > 0,
		!g.Ended.IsZero(), !g.Tried.IsZero(), len(g.Kills) > 0, len(g.Counters) > 0} {
		if there {
			fields++
		}
	}
	p.buf = slices.Grow(p.buf, 128*(len(g.Paths)+len(g.Files))) // most of it, at once
	p.mapLength(fields)
	p.named("n", func() { p.uint(g.N) })
	p.named("policies", func() { packAll(p, g.Policies, packString) })
	if g.Dir != "" {
		p.namedString("dir", g.Dir)
	}
	p.namedString("state", g.State)
	p.namedString("stage", g.Stage)
	p.namedString("agent", g.Agent)
	p.namedString("cgroup", g.Cgroup)
	p.named("paths", func() { packAll(p, g.Paths, packString) })
	p.named("families", func() { packAll(p, g.Families, packString) })
	if len(g.Files) > 0 {
		p.named("files", func() { packFiles(p, g.Files) })
	}
	p.named("minruns", func() { p.uint(g.MinRuns) })
	p.named("minwatch", func() { p.int(int64(g.MinWatch)) })
	p.namedTrue("acceptgaps", g.AcceptGaps)
	p.namedTime("learnedsince", g.LearnedSince)
	p.namedTrue("wider", g.Wider)
	if len(g.Sessions) > 0 {
		p.named("sessions", func() { packAll(p, g.Sessions, packString) })
	}
	p.named("since", func() { p.time(g.Since) })
	p.namedTime("ended", g.Ended)
	p.namedTime("tried", g.Tried)
	if len(g.Kills) > 0 {
		p.named("kills", func() { packAll(p, g.Kills, packKill) })
	}
	if len(g.Counters) > 0 {
		p.named("counters", func() { packAll(p, g.Counters, packCounter) })
	}
}

func (p *packer) mapLength(n int) {
	p.count += 2 * n
	p.length(n, 16, msgpcode.FixedMapLow, msgpcode.Map16, msgpcode.Map32)
}

func (p *packer) named(name string, pack func()) {
	p.string(name)
	pack()
}

func (p *packer) namedString(name, s string) {
	p.string(name)
	p.string(s)
}

func (p *packer) namedTrue(name string, there bool) {
	if there {
		p.string(name)
		p.buf = append(p.buf, msgpcode.True)
	}
}

func (p *packer) namedTime(name string, t time.Time) {
	if !t.IsZero() {
		p.string(name)
		p.time(t)
	}
}

func packFiles(p *packer, files map[string]FileID) {
	p.mapLength(len(files))
	for path, id := range files {
		p.string(path)
		packFileID(p, id)
	}
}

func packKill(p *packer, k *Kill) {
	m := p.begin()
	m.key('p')
	p.string(k.Path)
	m.uint('k', k.Kills)
	m.uint('w', k.Would)
	m.time('l', k.LastKill)
	m.time('m', k.LastWould)
}

func packCounter(p *packer, c *Counter) {
	m := p.begin()
	m.key('p')
	p.string(c.Policy)
	if c.Instance != "" {
		m.key('i')
		p.string(c.Instance)
	}
	m.uint('n', c.Count)
	m.uint('b', c.Before)
	m.bool('a', c.Anew)
}

// pass takes any value, and makes nothing of it.
func (u *unpacker) pass() {
	rest, err := skip(u.rest, &u.left, maxDepth)
	if u.rest = rest; err != nil {
		u.fail(err)
	}
}

// unpackGeneration fills g, which must be zero. Its strings are parts of one
// copy of the value.
func (u *unpacker) unpackGeneration(value []byte, g *Generation, bound int) error {
	u.rest, u.left, u.err = value, bound, nil
	u.text = string(value)
	defer func() { u.text = "" }()
	for range u.mapLength() {
		if key := u.bytes(); u.err == nil && !u.generationField(string(key), g) {
			u.fail(fmt.Errorf("unknown field %.20q", key))
		}
		if u.err != nil {
			return u.err
		}
	}
	if len(u.rest) > 0 {
		return errTrail
	}
	return nil
}

func (u *unpacker) generationField(key string, g *Generation) (known bool) {
	switch key {
	case "n":
		g.N = u.uint(math.MaxUint64)
	case "policies":
		g.Policies = unpackAll(u, unpackPart)
	case "dir":
		g.Dir = u.part()
	case "state":
		g.State = u.part()
	case "stage":
		g.Stage = u.part()
	case "agent":
		g.Agent = u.part()
	case "cgroup":
		g.Cgroup = u.part()
	case "paths":
		g.Paths = unpackAll(u, unpackPart)
	case "families":
		g.Families = unpackAll(u, unpackPart)
	case "files":
		g.Files = u.files()
	case "minruns":
		g.MinRuns = u.uint(math.MaxUint64)
	case "minwatch":
		g.MinWatch = time.Duration(u.int())
	case "acceptgaps":
		g.AcceptGaps = u.bool()
	case "learnedsince":
		g.LearnedSince = u.time()
	case "wider":
		g.Wider = u.bool()
	case "sessions":
		g.Sessions = unpackAll(u, unpackPart)
	case "since":
		g.Since = u.time()
	case "ended":
		g.Ended = u.time()
	case "tried":
		g.Tried = u.time()
	case "kills":
		g.Kills = unpackAll(u, unpackKill)
	case "counters":
		g.Counters = unpackAll(u, unpackCounter)
	default:
		return false
	}
	return true
}

// part is a string that is part of the copy of the value.
func (u *unpacker) part() string {
	n := len(u.bytes())
	if u.err != nil {
		return ""
	}
	end := len(u.text) - len(u.rest)
	return u.text[end-n : end]
}

func unpackPart(u *unpacker, s *string) { *s = u.part() }

func (u *unpacker) files() map[string]FileID {
	n := u.mapLength()
	files := make(map[string]FileID, n)
	for range n {
		path := u.part()
		var id FileID
		unpackFileID(u, &id)
		if u.err != nil {
			return nil
		}
		files[path] = id
	}
	return files
}

func unpackKill(u *unpacker, k *Kill) {
	u.fields(func(key byte) bool {
		switch key {
		case 'p':
			k.Path = u.part()
		case 'k':
			k.Kills = u.uint(math.MaxUint64)
		case 'w':
			k.Would = u.uint(math.MaxUint64)
		case 'l':
			k.LastKill = u.time()
		case 'm':
			k.LastWould = u.time()
		default:
			return false
		}
		return true
	})
}

func unpackCounter(u *unpacker, c *Counter) {
	u.fields(func(key byte) bool {
		switch key {
		case 'p':
			c.Policy = u.part()
		case 'i':
			c.Instance = u.part()
		case 'n':
			c.Count = u.uint(math.MaxUint64)
		case 'b':
			c.Before = u.uint(math.MaxUint64)
		case 'a':
			c.Anew = u.bool()
		default:
			return false
		}
		return true
	})
}
