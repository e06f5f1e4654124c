// Command bench measures what must be fast, each thing side by side with the
// least that could be done, in one run: it prints one table and writes
// bench.json. It needs root, gcc and a quiet machine. What touches the kernel
// stays in a cgroup made for it. It holds no test: nothing here passes or fails.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"
)

// rounds is how often each side is measured; the sides take turns.
const rounds = 11

// bench is one run of the program.
type bench struct {
	ctx  context.Context
	dir  string // for files, removed at the end
	bin  string // the stripped profile
	load string // load/load.c
	mote string // a static program that does nothing
	idle string // a Go program that does nothing
	rows []row
}

// sections measure rows, in the order of the table.
var sections = []struct {
	name    string
	measure func(*bench) error
}{
	{"fold", measureFold},
	{"memory", measureMemory},
	{"wire", measureWire},
	{"loss", measureLoss},
	{"hooks", measureHooks},
	{"runs", measureRuns},
	{"flush", measureFlush},
	{"report", measureReport},
	{"plan", measurePlan},
	{"apply", measureApply},
	{"start", measureStart},
	{"kernel", measureKernel},
}

func main() {
	if len(os.Args) > 2 && os.Args[1] == workerArg {
		if err := work(os.Args[2], os.Args[3:]); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", os.Args[2]+":", err)
			os.Exit(1)
		}
		return
	}
	out := flag.String("o", "bench.json", "where to write the figures")
	only := flag.String("only", "", "measure only the sections that match this pattern")
	flag.Parse()
	pattern, err := regexp.Compile(*only)
	if err == nil {
		err = run(*out, pattern)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(out string, only *regexp.Regexp) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("it needs root, to load the sensor and to make cgroups")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b := &bench{ctx: ctx}
	if b.dir, err = os.MkdirTemp("", "profile-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if err := b.build(); err != nil {
		return err
	}
	var errs []error
	for _, s := range sections {
		if !only.MatchString(s.name) || ctx.Err() != nil {
			continue
		}
		begun := time.Now()
		if err := s.measure(b); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.name, err))
			slog.Error("could not be measured", "section", s.name, "error", err)
		}
		slog.Info("measured", "section", s.name, "took", time.Since(begun).Round(100*time.Millisecond))
	}
	printTable(os.Stdout, b.rows)
	return errors.Join(append(errs, ctx.Err(), writeJSON(out, b.rows))...)
}

// build makes the programs under measurement.
func (b *bench) build() error {
	b.bin, b.load = filepath.Join(b.dir, "profile"), filepath.Join(b.dir, "load")
	b.mote, b.idle = filepath.Join(b.dir, "mote"), filepath.Join(b.dir, "idle")
	for _, args := range [][]string{
		// As make build does.
		{"go", "build", "-trimpath", "-tags", "urfave_cli_no_docs,grpcnotrace", "-ldflags", "-s -w", "-o", b.bin, "profile/cmd/profile"},
		{"go", "build", "-trimpath", "-ldflags", "-s -w", "-o", b.idle, "profile/e2e/gopher"},
		{"gcc", "-O2", "-static", "-o", b.load, "e2e/bench/load/load.c"},
		{"gcc", "-O1", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-o", b.mote, "e2e/mote/mote.c"},
	} {
		cmd := exec.CommandContext(b.ctx, args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", args[len(args)-1], err, text)
		}
	}
	info, err := os.Stat(b.bin)
	if err != nil {
		return err
	}
	b.add(row{Name: "the binary, stripped", Ours: float64(info.Size()) / 1e6, Unit: "MB", Target: some(25)})
	return nil
}
