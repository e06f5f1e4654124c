package main

import (
	"context"
	"errors"
	"io/fs"
	"syscall"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"profile/enforcer"
	"profile/internal/cgroup"
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

// plain takes off what gRPC puts before a message for programs.
func plain(err error) string {
	if st, ok := status.FromError(err); ok && st.Code() == codes.InvalidArgument {
		return "the agent refused the policy: " + st.Message()
	}
	return err.Error()
}

func nextStep(err error) string {
	var held *store.HeldError
	var coverage *enforcer.CoverageError
	var schema *store.SchemaError
	switch {
	case errors.Is(err, errNotRoot):
		return "Loading eBPF programs takes root: run it with sudo."
	case errors.Is(err, errNoBTF):
		return "The sensor needs a kernel built with CONFIG_DEBUG_INFO_BTF; with Tetragon on this machine, name its socket with --agent."
	case errors.Is(err, cgroup.ErrNoCgroup2):
		return "The sensor's socket hook is attached to a cgroup of version 2."
	case errors.As(err, &held):
		return "Wait for it to end, or learn into another database with --db."
	case errors.As(err, &coverage):
		return "Say --cgroup to enforce where it was learned, learn more widely, or say --wider to do it on purpose."
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
	case errors.Is(err, context.Canceled):
		return "It was interrupted."
	case errors.Is(err, fs.ErrNotExist) && isDatabase(err):
		return "Nothing was learned there yet: profile learn makes it."
	}
	return ""
}

// isDatabase reports whether the missing file is the database.
func isDatabase(err error) bool {
	var path *fs.PathError
	return errors.As(err, &path) && path.Op == "open"
}
