package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/procfs"

	"profile/internal/cgroup"
	"profile/internal/sensor"
	"profile/internal/tetragon"
)

// within is how long a program may take to begin, or to end.
const within = 20 * time.Second

// inGroup makes a cgroup, in which everything that touches the kernel stays,
// for as long as do takes. Whatever is left in it is killed.
func (b *bench) inGroup(do func(cgroup.Group) error) (err error) {
	root, err := cgroup.Root()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(root.Dir, "profile-test-bench-") // make clean-kernel knows the beginning
	if err != nil {
		return err
	}
	defer func() {
		kill := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
		err = errors.Join(err, kill, removeGroup(dir))
	}()
	g, err := cgroup.Find(dir)
	if err != nil {
		return err
	}
	return do(g)
}

func removeGroup(dir string) error {
	var err error
	for range 200 {
		if err = os.Remove(dir); err == nil || errors.Is(err, os.ErrNotExist) {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

// startIn starts a command that is in the group from its first instruction.
func (b *bench) startIn(g cgroup.Group, cmd *exec.Cmd) error {
	dir, err := os.Open(g.Dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	cmd.Stderr = os.Stderr
	return cmd.Start()
}

// loads runs commands in the group, all at once, and gives the numbers that
// each prints.
func (b *bench) loads(g cgroup.Group, commands ...[]string) ([][]float64, error) {
	outs := make([]bytes.Buffer, len(commands))
	cmds := make([]*exec.Cmd, len(commands))
	for i, args := range commands {
		cmds[i] = exec.CommandContext(b.ctx, args[0], args[1:]...)
		cmds[i].Stdout = &outs[i]
		if err := b.startIn(g, cmds[i]); err != nil {
			return nil, err // what runs already goes with the group
		}
	}
	numbers := make([][]float64, len(cmds))
	var errs []error
	for i := range cmds {
		errs = append(errs, cmds[i].Wait())
		var err error
		if numbers[i], err = readNumbers(outs[i].String()); err != nil {
			errs = append(errs, fmt.Errorf("%q: %w", commands[i], err))
		}
	}
	return numbers, errors.Join(errs...)
}

func readNumbers(text string) ([]float64, error) {
	var all []float64
	for word := range strings.FieldsSeq(text) {
		v, err := strconv.ParseFloat(word, 64)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	if len(all) == 0 {
		return nil, errors.New("it said nothing")
	}
	return all, nil
}

// ns measures what one operation takes in the group, in nanoseconds.
func (b *bench) ns(g cgroup.Group, args ...string) (float64, error) {
	n, err := b.loads(g, append([]string{b.load}, args...))
	if err != nil {
		return 0, err
	}
	return n[0][0], nil
}

// learner is a `profile learn` at work.
type learner struct {
	cmd  *exec.Cmd
	db   string
	mu   sync.Mutex
	text bytes.Buffer
	all  chan struct{} // closed when its messages have ended
}

// learn starts one in the group, and waits until its window is open.
func (b *bench) learn(g cgroup.Group, db string) (*learner, error) {
	l := &learner{cmd: exec.Command(b.bin, "--db", db, "learn", "--agent", "embedded", "--cgroup", g.Dir), db: db, all: make(chan struct{})}
	// It outlives the context: it must be ended in order.
	out, err := l.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := l.cmd.Start(); err != nil {
		return nil, err
	}
	opened := make(chan bool, 1)
	go l.read(out, opened)
	select {
	case <-opened:
		return l, nil
	case <-l.all:
	case <-time.After(within):
	}
	return nil, errors.Join(errors.New("learn did not begin"), l.stop())
}

func (l *learner) read(out io.Reader, opened chan<- bool) {
	defer close(l.all)
	for in := bufio.NewScanner(out); in.Scan(); {
		l.mu.Lock()
		fmt.Fprintln(&l.text, in.Text())
		l.mu.Unlock()
		if strings.HasPrefix(in.Text(), "watching since") {
			opened <- true
		}
	}
}

// cpu is the processor time that it has taken so far, in seconds.
func (l *learner) cpu() (float64, error) {
	p, err := procfs.NewProc(l.cmd.Process.Pid)
	if err != nil {
		return 0, err
	}
	st, err := p.Stat()
	return st.CPUTime(), err
}

// stop ends it as Ctrl-C does.
func (l *learner) stop() error {
	err := l.cmd.Process.Signal(os.Interrupt)
	timer := time.AfterFunc(within, func() { l.cmd.Process.Kill() })
	defer timer.Stop()
	<-l.all
	if err := errors.Join(err, l.cmd.Wait()); err != nil {
		return fmt.Errorf("learn: %w\n%s", err, l.text.Bytes())
	}
	return nil
}

// withSensor has an embedded sensor in this process for as long as do takes.
// Audit policies go with it; enforcing ones are do's to delete.
func (b *bench) withSensor(do func(*tetragon.Agent) error) error {
	conn := sensor.NewServer(sensor.Config{Name: fmt.Sprintf("bench-%d", os.Getpid()), Node: "bench"}).Local()
	agent, err := tetragon.Connect(b.ctx, tetragon.Embedded, conn, conn.Close)
	if err == nil {
		err = do(agent)
	}
	return errors.Join(err, conn.Close())
}
