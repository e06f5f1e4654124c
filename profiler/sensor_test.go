package profiler_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"profile/internal/cgroup"
	"profile/internal/sensor"
	"profile/internal/tetragon"
	"profile/profiler"
	"profile/store"
)

// needKernel says by name why a test that needs the real sensor cannot run.
func needKernel(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 && os.Getenv("CI") == "" {
		t.Skip("needs root: it loads the sensor's programs and makes a cgroup")
	}
}

// copied gives a program a path that nothing else runs.
func copied(t *testing.T, program string) string {
	t.Helper()
	own := t.TempDir() + "/tool"
	if out, err := exec.Command("cp", program, own).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return own
}

// startSensor serves the embedded sensor for one test.
func startSensor(t *testing.T) *tetragon.Agent {
	t.Helper()
	lis := bufconn.Listen(1 << 20)
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	server := sensor.NewServer(sensor.Config{Name: fmt.Sprintf("profiler_test_%d", os.Getpid()), Node: "test"})
	go func() { served <- server.Serve(ctx, lis) }()
	conn, err := grpc.NewClient("passthrough:///test", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	var closed bool
	agent, err := tetragon.Connect(ctx, tetragon.Embedded, conn, func() error {
		if closed {
			return nil // a test closed it
		}
		closed = true
		err := conn.Close()
		stop()
		return errors.Join(err, <-served)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := agent.Close(); err != nil {
			t.Error(err)
		}
	})
	return agent
}

// runIn runs a command in the group from its first instruction.
func runIn(t *testing.T, g cgroup.Group, name string, args ...string) {
	t.Helper()
	dir, err := os.Open(g.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

func readRows(t *testing.T, s *store.Store) map[string]store.Evidence {
	t.Helper()
	rows := map[string]store.Evidence{}
	err := s.View(t.Context(), func(tx *store.Tx) error {
		for all, err := range tx.Executables() {
			if err != nil {
				return err
			}
			for _, row := range all {
				rows[row.Key.Path] = row
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func readSessions(t *testing.T, s *store.Store) []store.Session {
	t.Helper()
	var all []store.Session
	err := s.View(t.Context(), func(tx *store.Tx) (err error) {
		all, err = tx.Sessions()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// learning is a Learn under way.
type learning struct {
	stop    func()
	session *store.Session
	err     error
	done    chan struct{}
}

func start(t *testing.T, o profiler.Options) *learning {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	l := &learning{stop: stop, done: make(chan struct{})}
	opened := make(chan time.Time, 1)
	o.Opened = func(at time.Time) { opened <- at }
	go func() {
		defer close(l.done)
		l.session, l.err = profiler.Learn(ctx, o)
	}()
	t.Cleanup(func() { stop(); <-l.done })
	select {
	case <-opened: // in its time, or Learn fails
	case <-l.done:
		t.Fatal(l.err)
	}
	return l
}

func (l *learning) end(t *testing.T) *store.Session {
	t.Helper()
	l.stop()
	<-l.done
	if l.err != nil {
		t.Fatal(l.err)
	}
	return l.session
}

func options(t *testing.T, agent *tetragon.Agent, s *store.Store, g cgroup.Group) profiler.Options {
	return profiler.Options{
		Agent: agent, Store: s, Group: g, CanaryDir: t.TempDir(),
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

func newStore(t *testing.T) *store.Store {
	t.Helper()
	s, err := store.Create(filepath.Join(t.TempDir(), "profile.db"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}
