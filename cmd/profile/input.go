package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// input is standard input until the context ends, with its error: a terminal, or
// a pipe, may have nothing for a long time, and who waits for it is to be told
// to end by a signal.
type input struct{ ctx context.Context }

// lookEvery is how often input looks whether its context has ended, in ms.
const lookEvery = 100

// Read implements io.Reader.
func (in input) Read(p []byte) (int, error) {
	for {
		if err := in.ctx.Err(); err != nil {
			return 0, err
		}
		ready := []unix.PollFd{{Fd: int32(os.Stdin.Fd()), Events: unix.POLLIN}}
		switch n, err := unix.Poll(ready, lookEvery); {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, fmt.Errorf("wait for standard input: %w", err)
		case n > 0:
			return os.Stdin.Read(p)
		}
	}
}

// canAsk reports whether there is a person at a terminal.
func canAsk() bool { return term.IsTerminal(int(os.Stdin.Fd())) }

// confirm asks on the terminal. Without one, and without --yes, nothing is done.
func confirm(ctx context.Context, yes bool, question string) error {
	if yes {
		return nil
	}
	if !canAsk() {
		return errors.New("nothing was changed: there is no terminal to ask on; say --yes")
	}
	fmt.Fprintf(os.Stderr, "%s [y/N] ", question)
	answer, err := bufio.NewReader(input{ctx}).ReadString('\n')
	if ctx.Err() != nil {
		fmt.Fprintln(os.Stderr)
		return errors.New("nothing was changed: interrupted")
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the answer: %w", err)
	}
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return errors.New("nothing was changed")
	}
	return nil
}
