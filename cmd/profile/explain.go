package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"regexp"
	"syscall"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"profile/enforcer"
	"profile/internal/cgroup"
	"profile/internal/tetragon"
	"profile/store"
)

// explain is the error as a sentence that says what to do next, where that can
// be known.
func explain(err error) string {
	text := plain(err)
	if step := nextStep(err); step != "" {
		return text + "\n" + step
	}
	return text
}

// envelope is what gRPC puts around a message, for programs.
var envelope = regexp.MustCompile(`rpc error: code = \w+ desc = |connection error: desc = "transport: Error while dialing: ([^"]*)"`)

// plain takes it off, wherever it stands.
func plain(err error) string { return unwrapped(err.Error()) }

func unwrapped(text string) string { return envelope.ReplaceAllString(text, "$1") }

func nextStep(err error) string {
	var held *store.HeldError
	var coverage *enforcer.CoverageError
	var elsewhere *enforcer.ElsewhereError
	var schema *store.SchemaError
	var missing *store.MissingError
	var moved *enforcer.MovedError
	var there *enforcer.StillThereError
	switch {
	case errors.Is(err, errNotRoot):
		return "Loading eBPF programs takes root: run it with sudo."
	case errors.Is(err, errNoBTF):
		return "The sensor needs a kernel built with CONFIG_DEBUG_INFO_BTF; with Tetragon on this machine, name its socket with --agent."
	case errors.Is(err, cgroup.ErrNoCgroup2):
		return "The sensor's socket hook is attached to a cgroup of version 2."
	case errors.As(err, &held) && held.By == store.ByLearner:
		return "Wait for it to end, or learn into another database with --db."
	case errors.As(err, &held):
		return "Wait for it to end."
	case errors.As(err, &coverage):
		return "Say --cgroup to enforce where it was learned, learn more widely, or say --wider to do it on purpose."
	case errors.As(err, &elsewhere):
		return "Name that agent with --agent, or take it off there first: profile release."
	case errors.As(err, &there):
		return "Release it without --gone."
	case errors.As(err, &moved):
		return "Release it with --db and that path, at which no database need be."
	case errors.As(err, &schema):
		return "It was written by a newer profile: use that one."
	case errors.Is(err, store.ErrNotDatabase):
		return "Name a database of profile with --db, or a file that does not exist yet."
	case errors.Is(err, store.ErrUnsafe):
		return "What it says decides what is killed: make it root's, file and directory writable by nobody else, if you trust what is in it."
	case errors.Is(err, store.ErrBusy):
		return "Try again in a moment."
	case errors.Is(err, syscall.ENOSPC):
		return "The disk is full: make room and try again."
	case errors.Is(err, syscall.EROFS):
		return "The file system is read-only: name a database elsewhere with --db."
	case errors.Is(err, context.Canceled), status.Code(err) == codes.Canceled:
		return "It was interrupted."
	case errors.Is(err, tetragon.ErrOption):
		return "Its policies have no word for it; the embedded sensor's have: say --agent embedded."
	case errors.Is(err, tetragon.ErrEnded):
		return "See whether the agent runs, and try again."
	case status.Code(err) == codes.Unavailable:
		return "Nothing answers at that address: start the agent, or name another with --agent."
	case status.Code(err) == codes.DeadlineExceeded:
		return "The agent does not answer: see whether it runs, or name another with --agent."
	case status.Code(err) == codes.Unimplemented:
		return "That is not a Tetragon, or one too old: name another agent with --agent, or say --agent embedded."
	case errors.As(err, &missing):
		return "Nothing was learned there yet: profile learn makes it."
	case errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0:
		return "It may take root: run it with sudo."
	}
	return ""
}
