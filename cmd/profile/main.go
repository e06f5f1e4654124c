// Command profile learns which programs of a Linux machine use the network,
// and takes it from those that never did.
//
// This room is the command line: a file a command, flags, printing and exit
// codes. What the commands do is done in profiler, enforcer and store.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"profile/enforcer"
)

// Exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup says so
		ends = append(ends, syscall.SIGHUP)
	}
	// A second signal must not cut short what is said of the first.
	ctx, _ := signal.NotifyContext(context.Background(), ends...)
	os.Exit(report(newApp().RunContext(ctx, os.Args)))
}

// usageError is an error about how the command was called.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func (e usageError) Unwrap() error { return e.error }

// report prints an error as a sentence and gives its exit code.
func report(err error) int {
	if err == nil {
		return exitDone
	}
	var code codeError
	if errors.As(err, &code) && code == err {
		return code.code // the command has said for itself what went wrong
	}
	for i, line := range strings.Split(explain(err), "\n") {
		if i == 0 {
			line = "profile: " + line
		}
		fmt.Fprintln(os.Stderr, showLine(line))
	}
	var usage usageError
	_, library := err.(cli.ExitCoder) // which has been asked for help on what it does not know
	if library || errors.As(err, &usage) || errors.Is(err, enforcer.ErrUsage) {
		return exitUsage
	}
	return exitFailed
}
