package main

import (
	"context"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"profile/enforcer"
	"profile/internal/cgroup"
	"profile/internal/tetragon"
	"profile/store"
)

func TestErrorsSayWhatToDo(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		want string
	}{
		{"not gone", fmt.Errorf("release: %w", enforcer.ErrEmbeddedThere), "Release it without --gone"},
		{"no root", errNotRoot, "run it with sudo"},
		{"no BTF", errNoBTF, "CONFIG_DEBUG_INFO_BTF"},
		{"no cgroup2", fmt.Errorf("learn: %w", cgroup.ErrNoCgroup2), "cgroup of version 2"},
		{"held", &store.HeldError{Path: "/db", PID: 7, Since: time.Unix(0, 0)}, "process 7"},
		{"held by a learner", &store.HeldError{Path: "/db", By: store.ByLearner}, "another database with --db"},
		{"too wide", &enforcer.CoverageError{Cgroup: "/", Learned: []string{"in cgroup /a"}}, "say --wider"},
		{"no database", &store.MissingError{Path: "/db"}, "profile learn makes it"},
		{"not a database", fmt.Errorf("open: %w", store.ErrNotDatabase), "or a file that does not exist yet"},
		{"full", &fs.PathError{Op: "write", Path: "/db", Err: syscall.ENOSPC}, "make room"},
		{"read-only", &fs.PathError{Op: "open", Path: "/db", Err: syscall.EROFS}, "--db"},
		{"interrupted", context.Canceled, "interrupted"},
		{"an option of ours", fmt.Errorf("load: %w", tetragon.ErrOption), "--agent embedded"},
		{"nobody there, as gRPC wraps it", status.Error(codes.Unavailable, `connection error: desc = "transport: Error while dialing: dial unix /s: no such file"`), "dial unix /s: no such file\nNothing answers"},
		{"the stream ended", fmt.Errorf("read events of agent a: %w", tetragon.ErrEnded), "See whether the agent runs"},
		{"nobody there", fmt.Errorf("ask: %w", status.Error(codes.Unavailable, "no such file")), "Nothing answers at that address"},
		{"refused", fmt.Errorf("load policy x: the agent refused it: %w", status.Error(codes.InvalidArgument, "spec.kprobes: no hook")), "refused it: spec.kprobes: no hook"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := explain(c.err)
			if !strings.Contains(got, c.want) || strings.Contains(got, "rpc error") || strings.Contains(got, "connection error") {
				t.Errorf("%q, want %q in it", got, c.want)
			}
		})
	}
}

func TestPathsAreShownOnceAndSafely(t *testing.T) {
	for _, c := range []struct{ name, text, whole, want string }{
		{"plain", "/usr/bin/tool", "", "/usr/bin/tool"},
		{"blank", "/usr/bin/a tool", "", `"/usr/bin/a tool"`},
		{"newline", "/usr/bin/a\ntool", "", `"/usr/bin/a\ntool"`},
		{"escape", "/usr/bin/\x1b[31m", "", `"/usr/bin/\x1b[31m"`},
		{"not UTF-8", `/usr/bin/t\xf6l`, "L3Vzci9iaW4vdPZs", `"/usr/bin/t\xf6l"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := showWhole(c.text, c.whole); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
	var out strings.Builder
	table := newTable(&out, "executable", "why")
	table.row("/usr/bin/tool", "started through the script /tmp/a\nb\x1b[2J")
	table.print()
	if strings.Contains(out.String(), "\x1b") || strings.Count(out.String(), "\n") != 2 {
		t.Errorf("a name reaches the terminal as more than text: %q", &out)
	}
}
