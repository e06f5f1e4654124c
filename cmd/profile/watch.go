package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"profile/enforcer"
	"profile/internal/cgroup"
	"profile/internal/tetragon"
)

// watch applies the plan, where somebody says so, and watches over what is in
// force until it is interrupted.
func (e *enforcing) watch(c *cli.Context) error {
	lock, err := e.store.LockWatch()
	if err != nil {
		return err
	}
	defer lock.Release()
	if e.yes || canAsk() {
		err = e.enforce(c)
		g, inForceErr := enforcer.InForce(c.Context, e.store)
		if inForceErr != nil {
			return errors.Join(err, inForceErr)
		}
		if g == nil || err != nil && !errors.Is(err, enforcer.ErrEmptyPlan) {
			return err
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s\n", showLine(err.Error()))
		}
	} else {
		fmt.Fprintln(os.Stderr, "no plan is made, there being no terminal to ask on, and no --yes: what is in force is kept so")
	}
	lines := &changes{w: os.Stdout}
	err = enforcer.Watch(c.Context, enforcer.WatchOptions{
		Store: e.store, Untried: c.Bool("untried"), Group: cgroup.Find,
		Connect: func(ctx context.Context, address string) (*tetragon.Agent, error) { return connect(ctx, address, e.db) },
		Look:    func(s *enforcer.Status, drift error) { lines.print(humanStatus(s, drift), drift) },
		Tell:    func(text string) { fmt.Fprintln(os.Stderr, showLine(text)) },
	})
	if errors.Is(err, enforcer.ErrNothing) {
		return fmt.Errorf("%w that could be watched over: profile enforce brings a plan into force", err)
	}
	if err == nil && c.Context.Err() != nil {
		fmt.Fprintln(os.Stderr, "no longer watched over; what is in force stays so")
	}
	return err
}

// changes prints a status that comes again and again: once whole, and then the
// lines that were not in the last one.
type changes struct {
	w    io.Writer
	last map[string]bool
}

func (c *changes) print(text string, drift error) {
	if drift != nil {
		text += showLine(drift.Error()) + "\n"
	}
	now := map[string]bool{}
	for line := range strings.Lines(text) {
		now[line] = true
		if !c.last[line] {
			fmt.Fprint(c.w, line)
		}
	}
	c.last = now
}
