package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"
)

// slowReader takes nothing until it is let.
type slowReader struct {
	bytes.Buffer
	first chan struct{} // closed by the first Write
	let   chan struct{}
	once  bool
}

func (r *slowReader) Write(p []byte) (int, error) {
	if !r.once {
		r.once = true
		close(r.first)
	}
	<-r.let
	return r.Buffer.Write(p)
}

func TestSpoolDoesNotWaitForItsReader(t *testing.T) {
	r := &slowReader{first: make(chan struct{}), let: make(chan struct{})}
	s := newSpool(r)
	var want bytes.Buffer
	for i := range 10000 {
		line := fmt.Sprintf("row %d\n", i)
		want.WriteString(line)
		if _, err := io.WriteString(s, line); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			select {
			case <-r.first: // the first row is handed on before there is a second
			case <-time.After(10 * time.Second):
				t.Fatal("the first row waits for more")
			}
		}
	}
	close(r.let)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(r.Bytes(), want.Bytes()) {
		t.Errorf("handed on %d bytes, want the %d that were written, in order", r.Len(), want.Len())
	}
}

var errFull = errors.New("full")

type fullWriter struct{}

func (fullWriter) Write([]byte) (int, error) { return 0, errFull }

func TestSpoolGivesTheErrorOfItsReader(t *testing.T) {
	s := newSpool(fullWriter{})
	deadline := time.Now().Add(10 * time.Second)
	for {
		if _, err := s.Write([]byte("x")); errors.Is(err, errFull) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("writes go on though nothing can be handed on")
		}
	}
	if err := s.Close(); !errors.Is(err, errFull) {
		t.Errorf("Close: %v, want %v", err, errFull)
	}
}
