package export

import (
	"bytes"
	"fmt"
	"io"
	"testing"
	"time"

	"profile/store"
)

func many(n int) *Export {
	x := &Export{Sessions: []store.Session{{ID: "20261124t180601z-1a2b3c", Agent: "embedded", Started: day}}}
	for i := range n {
		x.Evidence = append(x.Evidence, store.Evidence{
			Key: store.Key{Scope: store.HostScope, Path: fmt.Sprintf("/usr/lib/tool-%06d/bin/tool", i)}, Session: x.Sessions[0].ID,
			FirstSeen: day, LastSeen: day.Add(time.Hour),
			Files: []store.Tally{{File: store.FileID{Dev: 1, Ino: uint64(i) + 1, Size: 4096, CtimeNS: day.UnixNano()},
				FirstExec: day, LastExec: day.Add(time.Minute), Seen: 7, Complete: 6, Clean: 6,
				Entries: []store.Entry{{Name: fmt.Sprintf("/usr/bin/tool-%d", i), Runs: 5}, {Name: "/usr/bin/alias", Runs: 2}},
				Network: []store.Use{{Family: "inet", Type: "stream", Runs: 3, First: day, Last: day, Protocols: []uint32{0, 6},
					Reach: store.ReachOut, Destinations: []string{fmt.Sprintf("192.0.2.1:%d", i)}}}}}})
	}
	return x
}

func BenchmarkWrite(b *testing.B) {
	x := many(10000)
	for b.Loop() {
		if err := x.Write(io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	var text bytes.Buffer
	if err := many(10000).Write(&text); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := Read(bytes.NewReader(text.Bytes())); err != nil {
			b.Fatal(err)
		}
	}
}
