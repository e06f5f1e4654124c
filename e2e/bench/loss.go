package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"profile/internal/cgroup"
	"profile/store"
)

const (
	lossProcesses = 8
	lossSeconds   = "10"
	runsSeconds   = 60
	runsRate      = 1000
)

// learned is what a session has recorded.
type learned struct {
	rows map[string]store.Tally // by path, the tallies of all files in one
	lost uint64
	gaps int
}

// readLearned reads a database of one session.
func (b *bench) readLearned(db string) (learned, error) {
	all := learned{rows: map[string]store.Tally{}}
	s, err := store.Open(db)
	if err != nil {
		return all, err
	}
	return all, s.View(b.ctx, func(tx *store.Tx) error {
		sessions, err := tx.Sessions()
		if err != nil {
			return err
		}
		for _, s := range sessions {
			all.gaps += len(s.Gaps)
			for _, g := range s.Gaps {
				all.lost += g.Count
			}
		}
		for rows, err := range tx.Executables() {
			if err != nil {
				return err
			}
			for _, r := range rows {
				for _, t := range r.Files {
					sum := all.rows[r.Key.Path]
					sum.Seen += t.Seen
					sum.Complete += t.Complete
					sum.Network = append(sum.Network, t.Network...)
					all.rows[r.Key.Path] = sum
				}
			}
		}
		return nil
	})
}

// learnWhile learns in a group of its own while do runs, and gives what was
// learned.
func (b *bench) learnWhile(name string, do func(cgroup.Group, *learner) error) (learned, error) {
	db := filepath.Join(b.dir, name+".db")
	err := b.inGroup(func(g cgroup.Group) error {
		l, err := b.learn(g, db)
		if err != nil {
			return err
		}
		// A moment for what is still on its way to the fold.
		err = do(g, l)
		time.Sleep(300 * time.Millisecond)
		return errors.Join(err, l.stop())
	})
	if err != nil {
		return learned{}, err
	}
	return b.readLearned(db)
}

// copies gives a program other names, each a file of its own.
func (b *bench) copies(program string, n int) ([]string, error) {
	var names []string
	for i := range n {
		name := fmt.Sprintf("%s-%d", program, i)
		if err := copyFile(program, name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// measureLoss has 8 processes open sockets, and start programs, as fast as two
// cores can.
func measureLoss(b *bench) error {
	openers, err := b.copies(b.load, lossProcesses)
	if err != nil {
		return err
	}
	var made float64
	got, err := b.learnWhile("sockets", func(g cgroup.Group, _ *learner) error {
		var commands [][]string
		for _, name := range openers {
			commands = append(commands, []string{name, "sockets", lossSeconds})
		}
		made, err = b.together(g, commands)
		return err
	})
	if err != nil {
		return err
	}
	known := 0
	for _, path := range openers {
		if uses := got.rows[path].Network; len(uses) == 4 { // inet and inet6, stream and dgram
			known++
		}
	}
	b.add(row{Name: "observations lost, 8 processes opening sockets for 10 s", Ours: float64(got.lost), Unit: fmt.Sprintf("of %.0f", made), Target: some(0)})
	b.add(row{Name: "the same, openers not known", Ours: float64(lossProcesses - known), Unit: "of 8", Target: some(0)})

	motes, err := b.copies(b.mote, lossProcesses)
	if err != nil {
		return err
	}
	got, err = b.learnWhile("execs", func(g cgroup.Group, _ *learner) error {
		var commands [][]string
		for _, name := range motes {
			commands = append(commands, []string{b.load, "execs", lossSeconds, name})
		}
		made, err = b.together(g, commands)
		return err
	})
	if err != nil {
		return err
	}
	b.add(row{Name: "execs lost, 8 processes starting programs for 10 s", Ours: made - got.complete(motes), Unit: fmt.Sprintf("of %.0f", made), Target: some(0)})
	b.add(row{Name: "the same, observations lost", Ours: float64(got.lost), Target: some(0)})
	return nil
}

func (l learned) complete(paths []string) float64 {
	var n float64
	for _, path := range paths {
		n += float64(l.rows[path].Complete)
	}
	return n
}

// together runs commands at once, and adds up what they say.
func (b *bench) together(g cgroup.Group, commands [][]string) (float64, error) {
	all, err := b.loads(g, commands...)
	var sum float64
	if err != nil {
		return 0, err
	}
	for _, n := range all {
		sum += n[0]
	}
	return sum, nil
}

// measureRuns has a thousand short runs a second for a minute.
func measureRuns(b *bench) error {
	var made, took, used float64
	got, err := b.learnWhile("runs", func(g cgroup.Group, l *learner) error {
		before, err := l.cpu()
		if err != nil {
			return err
		}
		n, err := b.loads(g, []string{b.load, "runs", strconv.Itoa(runsSeconds), strconv.Itoa(runsRate), b.mote})
		if err != nil {
			return err
		}
		after, err := l.cpu()
		made, took, used = n[0][0], n[0][1], after-before
		return err
	})
	if err != nil {
		return err
	}
	rate := fmt.Sprintf("%.0f short runs a second for %.0f s", made/took, took)
	b.add(row{Name: rate + ": lost", Ours: made - got.complete([]string{b.mote}) + float64(got.lost), Unit: fmt.Sprintf("of %.0f", made), Target: some(0)})
	b.add(row{Name: "the same, learn's share of one core", Ours: used / took * 100, Unit: "%", Target: some(8)})
	return nil
}
