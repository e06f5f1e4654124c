package enforcer

import (
	"fmt"
	"iter"

	"profile/store"
)

// candidate is a path to decide on, with the evidence of it: none where it was
// not learned.
type candidate struct {
	file       string
	host       []store.Evidence
	containers [][]store.Evidence

	verdict Verdict      // of host; zero where nothing depends on it
	now     store.FileID // of the file there now, where the verdict is quiet
	nowErr  error        // why that cannot be said
}

func (c *candidate) learned() bool { return len(c.host)+len(c.containers) > 0 }

// candidates yields each path that there is evidence of. It changes nothing of
// the planner, so that it may go on while those before are decided on.
func (p *planner) candidates(tx *store.Tx) iter.Seq2[*candidate, error] {
	return func(yield func(*candidate, error) bool) {
		var file string
		var keys [][]store.Evidence // of file
		for rows, err := range ahead(tx.Executables()) {
			if err == nil {
				err = p.checkSessions(rows)
			}
			if err != nil {
				yield(nil, err)
				return
			}
			if len(keys) > 0 && file != rows[0].Key.Path {
				if !yield(p.look(file, keys), nil) {
					return
				}
				keys = nil
			}
			file, keys = rows[0].Key.Path, append(keys, rows)
		}
		if len(keys) > 0 {
			yield(p.look(file, keys), nil)
		}
	}
}

func (p *planner) checkSessions(rows []store.Evidence) error {
	for _, row := range rows {
		if _, ok := p.c.known[row.Session]; !ok {
			return fmt.Errorf("evidence of %q names session %q, which is not recorded", row.Key.Path, row.Session)
		}
	}
	return nil
}

// look judges what was learned of one path, and looks at the file that is there
// now where that matters.
func (p *planner) look(file string, keys [][]store.Evidence) *candidate {
	c := &candidate{file: file}
	c.host, c.containers = splitScopes(keys)
	if len(c.host) == 0 || !p.wanted(c.file) && !p.listed[c.file] {
		return c
	}
	c.verdict, _ = p.c.judge(c.host)
	if c.verdict.Kind == Quiet && !p.o.Remote {
		c.now, c.nowErr = identify(c.file)
	}
	return c
}
