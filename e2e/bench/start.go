package main

import (
	"os/exec"

	"profile/store"
)

// measureStart compares the start of a report with that of a Go program that
// does nothing.
func measureStart(b *bench) error {
	var rows []*store.Evidence
	for i := range 20 {
		rows = append(rows, madeUp(i, toolPath(i)))
	}
	s, err := b.makeDatabase("small.db", rows)
	if err != nil {
		return err
	}
	ours := timed(func() error { return exec.CommandContext(b.ctx, b.bin, "--db", s.Path(), "report").Run() })
	floor := timed(func() error { return exec.CommandContext(b.ctx, b.idle).Run() })
	o, f, err := b.compare(5*rounds, ours, floor)
	b.add(row{Name: "profile report on a small database, beyond a Go program that does nothing", Ours: (o - f) * 1e3, Floor: some(f * 1e3), Unit: "ms", Target: some(5)})
	return err
}
