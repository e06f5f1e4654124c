package enforcer

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"profile/internal/schedule"
	"profile/store"
)

func TestPlanWarnsOfWhatWasTooShortToSee(t *testing.T) {
	root := t.TempDir()
	file := filepath.Join(root, "etc/crontab")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("30 3 2 3 * root second\n0 0 3 * * root third\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	jobs, err := schedule.Jobs(context.Background(), root, at(0))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name     string
		sessions []store.Session
		says     []string
		silent   []string
	}{
		{"an afternoon", []store.Session{awake(watched("a", 0, 10), 6)}, []string{"learned for 6h awake, which is less than a day", "second", "third"}, nil},
		{"two half days, the second day among them", []store.Session{awake(watched("a", 0, 14), 12), awake(watched("b", 20, 40), 12)},
			[]string{"third"}, []string{"less than a day", "second"}},
		{"a long sleep", []store.Session{awake(watched("a", 0, 100), 2)}, []string{"for 2h awake"}, []string{"second", "third"}},
		{"a session elsewhere does not count", []store.Session{awake(watched("a", 0, 10), 6), elsewhere(awake(watched("b", 20, 100), 80))},
			[]string{"for 6h awake", "second"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScene(t)
			s.sessions, s.o.Jobs = c.sessions, jobs
			quiet := s.learned("quiet", runs(1))
			warned := strings.Join(s.mustPlan(quiet).Warnings, "\n")
			for _, says := range c.says {
				if !strings.Contains(warned, says) {
					t.Errorf("warned: %s; want %q", warned, says)
				}
			}
			for _, says := range c.silent {
				if strings.Contains(warned, says) {
					t.Errorf("warned: %s; want nothing of %q", warned, says)
				}
			}
		})
	}
}

func TestAPlanThatRestsOnNothingLearnedDoesNotWarnOfIt(t *testing.T) {
	s := newScene(t)
	s.sessions, s.o.Include = nil, []string{program(t, s.dir, "tool")}
	if warned := s.mustPlan(s.o.Include[0]).Warnings; len(warned) > 0 {
		t.Errorf("warned: %q", warned)
	}
}

func awake(s store.Session, hours int) store.Session {
	s.Awake = time.Duration(hours) * time.Hour
	return s
}

func elsewhere(s store.Session) store.Session {
	s.Cgroup = "/other"
	return s
}
