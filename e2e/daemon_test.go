package e2e

import (
	"bufio"
	"bytes"
	"context"
	"maps"
	"os/exec"
	"path/filepath"
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
		ts.Setenv(args[1], "unix://"+path)
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
// within a while.
func cmdPolicies(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[2])
	ts.Check(err)
	conn, err := grpc.NewClient(args[0], grpc.WithTransportCredentials(insecure.NewCredentials()))
	ts.Check(err)
	defer conn.Close()
	client := tetragon.NewFineGuidanceSensorsClient(conn)
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	var names []string
	for range 200 {
		list, err := client.ListTracingPolicies(ctx, &tetragon.ListTracingPoliciesRequest{})
		ts.Check(err)
		names = nil
		for _, p := range list.GetPolicies() {
			if strings.HasPrefix(p.GetName(), args[1]) {
				names = append(names, p.GetName())
			}
		}
		if len(names) == want {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	ts.Fatalf("policies %q, want %d", names, want)
}
