package e2e

import (
	"bufio"
	"bytes"
	"context"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

func init() {
	maps.Copy(commands, map[string]func(ts *testscript.TestScript, neg bool, args []string){
		"daemon":   cmdDaemon,
		"policies": cmdPolicies,
	})
}

// daemon is a `profile agent` of a script.
type daemon struct {
	cmd  *exec.Cmd
	err  bytes.Buffer
	done chan struct{} // closed when its stderr has ended
}

// daemons are those that run, by the names of their sockets.
var daemons sync.Map

// daemon start NAME [FLAG…] starts `profile agent` at $NAME, a socket; daemon
// term NAME and daemon kill NAME end it, the first in order.
func cmdDaemon(ts *testscript.TestScript, neg bool, args []string) {
	path := ts.MkAbs(args[1] + ".sock")
	if args[0] == "start" {
		startDaemon(ts, path, args[2:])
		address := "unix://" + path
		ts.Setenv(args[1], address)
		if s := of(ts); s.others == nil {
			s.others = append([]string{}, listPolicies(ts, address)...)
		}
		return
	}
	got, ok := daemons.LoadAndDelete(path)
	if !ok {
		ts.Fatalf("no daemon %s runs", args[1])
	}
	d := got.(*daemon)
	sig := map[string]syscall.Signal{"term": syscall.SIGTERM, "kill": syscall.SIGKILL}[args[0]]
	ts.Check(d.cmd.Process.Signal(sig))
	select {
	case <-d.done:
	case <-time.After(within):
		ts.Fatalf("the daemon has not ended after %s", within)
	}
	err := d.cmd.Wait()
	ts.Logf("daemon: %v: %s", err, d.err.Bytes())
	if args[0] == "term" && err != nil {
		ts.Fatalf("the daemon ends with %v", err)
	}
}

func startDaemon(ts *testscript.TestScript, path string, flags []string) {
	d := &daemon{done: make(chan struct{})}
	d.cmd = exec.Command(filepath.Join(built, "profile"), append([]string{"agent", "--listen", "unix://" + path}, flags...)...)
	stderr, err := d.cmd.StderrPipe()
	ts.Check(err)
	ts.Check(d.cmd.Start())
	daemons.Store(path, d)
	ts.Defer(func() {
		if _, ok := daemons.LoadAndDelete(path); ok {
			// The script failed; what is in force belongs to the daemon.
			databases, _ := filepath.Glob(ts.MkAbs("*.db"))
			for _, db := range databases {
				exec.Command(filepath.Join(built, "profile"), "--db", db, "release", "--yes").Run()
			}
			d.cmd.Process.Kill()
			<-d.done
			d.cmd.Wait()
		}
	})
	listening := make(chan struct{})
	go func() {
		defer close(d.done)
		for in := bufio.NewScanner(stderr); in.Scan(); {
			d.err.WriteString(in.Text() + "\n")
			if strings.HasPrefix(in.Text(), "listening at") {
				close(listening)
			}
		}
	}()
	select {
	case <-listening:
	case <-d.done:
		ts.Fatalf("the daemon ended: %s", d.err.Bytes())
	case <-time.After(within):
		ts.Fatalf("the daemon does not listen after %s", within)
	}
}

// policies ADDRESS PREFIX N: the agent lists so many policies of the prefix,
// within a while, beside those that were in force before the script's first.
func cmdPolicies(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[2])
	ts.Check(err)
	var names []string
	for range 200 {
		names = slices.DeleteFunc(listPolicies(ts, args[0]), func(name string) bool {
			return !strings.HasPrefix(name, args[1]) || slices.Contains(of(ts).others, name)
		})
		if len(names) == want {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	ts.Fatalf("policies %q, want %d", names, want)
}

// listPolicies gives the names of the policies that an agent lists.
func listPolicies(ts *testscript.TestScript, address string) []string {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	ts.Check(err)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	list, err := tetragon.NewFineGuidanceSensorsClient(conn).ListTracingPolicies(ctx, &tetragon.ListTracingPoliciesRequest{})
	ts.Check(err)
	var names []string
	for _, p := range list.GetPolicies() {
		names = append(names, p.GetName())
	}
	return names
}
