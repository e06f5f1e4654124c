package profiler

import (
	"testing"

	"pgregory.net/rapid"
)

// model is what the rules of evidence say of a history, put as plainly as can
// be: every run is kept, and counted at the end.
type model struct {
	runs    []*modelRun
	of      map[uint32]*modelRun // by pid
	open    bool
	window  int
	pending []*modelRun // ended since the last canary
}

type modelRun struct {
	path     string
	live     int
	counted  bool // its exec was seen in a window
	unseen   bool
	window   int
	proven   bool // began before the last canary that came back
	ended    bool
	complete bool
	touched  bool
	crossed  bool
	network  bool
}

func (m *model) exec(pid uint32, path string) {
	old := m.of[pid]
	r := &modelRun{path: path, live: 1, counted: m.open, window: m.window}
	m.runs = append(m.runs, r)
	m.of[pid] = r
	if old != nil {
		m.leave(old)
	}
}

func (m *model) leave(r *modelRun) {
	if r.live--; r.live == 0 {
		r.ended = true
		m.pending = append(m.pending, r)
	}
}

func (m *model) canary() {
	if !m.open {
		m.open = true
		m.window++
		for _, r := range m.runs {
			switch {
			// In an earlier window, and alive in the time that was not watched.
			case r.counted && (!r.ended || r.window < 0):
				r.crossed = true
			case !r.counted && !r.ended:
				r.unseen = true
			}
		}
	} else {
		for _, r := range m.pending {
			r.complete = r.counted && r.window == m.window
		}
	}
	m.pending = nil
	for _, r := range m.runs {
		r.proven = true
	}
}

// overdue closes the window. What ended since the last canary, and began
// before it, is cut: it is marked by a window that there is none of.
func (m *model) overdue() {
	if !m.open {
		return
	}
	m.open = false
	for _, r := range m.pending {
		if r.counted && r.proven && r.window == m.window {
			r.window = -1
		}
	}
	m.pending = nil
}

// cut is leave while no window is open.
func (m *model) cut() {
	for _, r := range m.pending {
		if r.counted && r.proven && !r.crossed && r.window == m.window {
			r.window = -1
		}
	}
	m.pending = nil
}

func (m *model) loss() {
	if !m.open {
		return
	}
	for _, r := range m.runs {
		if !r.ended {
			r.touched = true
		}
	}
	for _, r := range m.pending {
		r.touched = true
	}
}

func (m *model) count(path string) count {
	var c count
	for _, r := range m.runs {
		if r.path != path {
			continue
		}
		add := func(n *uint64, is bool) {
			if is {
				*n++
			}
		}
		add(&c.Seen, r.counted)
		add(&c.Complete, r.complete)
		add(&c.Clean, r.complete && !r.touched)
		add(&c.Crossed, r.crossed)
		add(&c.Going, r.counted && !r.ended && !r.touched && !r.crossed)
		add(&c.Touched, r.counted && !r.ended && (r.touched || r.crossed))
		add(&c.Unseen, r.unseen)
		add(&c.Network, r.network)
		if r.unseen && !r.ended {
			c.Alive += r.live
		}
	}
	c.Alive = min(c.Alive, 16)
	return c
}

func TestTheFoldCountsAsTheRulesSay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		m := &model{of: map[uint32]*modelRun{}}
		pid := rapid.Uint32Range(10, 15)
		path := rapid.SampledFrom([]string{"/bin/a", "/bin/b", "/bin/c"})
		t.Repeat(map[string]func(*rapid.T){
			"exec": func(t *rapid.T) {
				pid, path := pid.Draw(t, "pid"), path.Draw(t, "path")
				w.exec(pid, path)
				m.exec(pid, path)
				if !m.open {
					m.cut()
				}
			},
			"fork": func(t *rapid.T) {
				parent, child := pid.Draw(t, "parent"), pid.Draw(t, "child")
				r := m.of[parent]
				if r == nil || m.of[child] != nil {
					t.Skip()
				}
				w.fork(parent, child)
				m.of[child] = r
				r.live++
			},
			"exit": func(t *rapid.T) {
				pid := pid.Draw(t, "pid")
				r := m.of[pid]
				if r == nil {
					t.Skip()
				}
				w.exit(pid)
				delete(m.of, pid)
				m.leave(r)
				if !m.open {
					m.cut()
				}
			},
			"socket": func(t *rapid.T) {
				pid := pid.Draw(t, "pid")
				if m.of[pid] == nil {
					t.Skip()
				}
				w.socket(pid, 2, 1)
				m.of[pid].network = true
			},
			"canary": func(t *rapid.T) {
				w.canary()
				m.canary()
			},
			"overdue": func(t *rapid.T) {
				w.f.Overdue()
				m.overdue()
			},
			"loss": func(t *rapid.T) {
				w.loss(1)
				m.loss()
			},
			"flush": func(t *rapid.T) {
				w.flush()
			},
			"": func(t *rapid.T) {
				if len(w.f.processes) != len(m.of) {
					t.Fatalf("%d processes, want %d", len(w.f.processes), len(m.of))
				}
			},
		})
		for _, path := range []string{"/bin/a", "/bin/b", "/bin/c"} {
			if got, want := w.count(path), m.count(path); got != want {
				t.Fatalf("%s:\n got %+v\nwant %+v", path, got, want)
			}
		}
	})
}
