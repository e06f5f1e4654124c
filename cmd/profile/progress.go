package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"profile/profiler"
)

// plainEvery is how often a line is printed where there is no terminal.
const plainEvery = time.Minute

// progress tells a person how learning goes: a line that is written over on a
// terminal, a line now and then elsewhere. It is safe for concurrent use.
type progress struct {
	mu       sync.Mutex
	w        io.Writer
	width    func() int // of the terminal; nil if there is none
	lastLine time.Time
	shown    int // bytes of the line that stands there and is to be written over
}

func newProgress(f *os.File) *progress {
	p := &progress{w: f}
	if term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" {
		p.width = func() int {
			w, _, err := term.GetSize(int(f.Fd()))
			if err != nil || w <= 0 {
				return 80
			}
			return w
		}
	}
	return p
}

// opened says that the window is open: what starts from now on is learned.
func (p *progress) opened(at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	fmt.Fprintf(p.w, "watching since %s\n", at.Local().Format(time.RFC3339))
	p.lastLine = time.Now()
}

func (p *progress) show(s profiler.Progress) {
	line := "learning " + s.Elapsed.Round(time.Second).String()
	if s.Left > 0 {
		line += ", " + s.Left.Round(time.Second).String() + " left"
	}
	line += fmt.Sprintf(": %d executables, %d use the network, %d events, %d lost", s.Executables, s.Network, s.Events, s.Lost)
	p.line(line)
}

func (p *progress) line(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.width == nil {
		if time.Since(p.lastLine) < plainEvery {
			return
		}
		p.lastLine = time.Now()
		fmt.Fprintln(p.w, line)
		return
	}
	if w := p.width() - 1; len(line) > w {
		line = line[:max(w, 0)]
	}
	p.clear()
	fmt.Fprint(p.w, line)
	p.shown = len(line)
}

// read tells how far a record has been read.
func (p *progress) read(n profiler.Counts) {
	p.line(fmt.Sprintf("reading: %d executables, %d use the network, %d events, %d lost", n.Executables, n.Network, n.Events, n.Lost))
}

// clear wipes the line that stands there. A terminal that was made narrower
// since has broken it into several.
func (p *progress) clear() {
	if p.shown == 0 {
		return
	}
	const erase, up = "\r\x1b[2K", "\x1b[A"
	fmt.Fprint(p.w, erase+strings.Repeat(up+erase, (p.shown-1)/max(p.width(), 1)))
	p.shown = 0
}

func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
}
