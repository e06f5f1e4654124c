package main

import (
	"errors"
	"io"
	"sync"
)

// errSpoolClosed is returned by a Write after Close.
var errSpoolClosed = errors.New("write after the end of the output")

// spool takes output at once and hands it on as fast as its reader takes it: a
// report that is read in a pager must not keep the database from a learner
// until the last page. It holds what the reader has not taken, a whole report
// at most. Write and Close are for one goroutine.
type spool struct {
	to io.Writer

	mu    sync.Mutex
	ready *sync.Cond // there is something to hand on, or it is closed
	held  []byte
	ended bool
	err   error
	done  chan struct{}
}

func newSpool(to io.Writer) *spool {
	s := &spool{to: to, done: make(chan struct{})}
	s.ready = sync.NewCond(&s.mu)
	go s.drain()
	return s
}

// Write implements io.Writer. Its error is that of an earlier piece.
func (s *spool) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return 0, errSpoolClosed
	}
	if s.err != nil {
		return 0, s.err
	}
	s.held = append(s.held, p...)
	s.ready.Signal()
	return len(p), nil
}

// Close waits until the reader has taken everything.
func (s *spool) Close() error {
	s.mu.Lock()
	s.ended = true
	s.ready.Signal()
	s.mu.Unlock()
	<-s.done
	return s.err
}

func (s *spool) drain() {
	defer close(s.done)
	var piece []byte
	for {
		s.mu.Lock()
		for len(s.held) == 0 && !s.ended {
			s.ready.Wait()
		}
		piece, s.held = s.held, piece[:0]
		s.mu.Unlock()
		if len(piece) == 0 {
			return
		}
		if _, err := s.to.Write(piece); err != nil {
			s.mu.Lock()
			s.err, s.held = err, nil
			s.mu.Unlock()
			return
		}
	}
}
