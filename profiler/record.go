package profiler

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"

	api "github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/protobuf/encoding/protojson"
)

// maxLine bounds one line of a record, in bytes. An event with all the
// arguments and the environment that an agent takes is far below it.
const maxLine = 4 << 20

// Stdin is the name that stands for the standard input among records.
const Stdin = "-"

// errCut is the error of a last line that was being written.
var errCut = errors.New("cut off")

// lineError is a line that is no event.
type lineError struct {
	file string
	line int
	err  error
}

func (e *lineError) Error() string { return fmt.Sprintf("%q, line %d: %v", e.file, e.line, e.err) }
func (e *lineError) Unwrap() error { return e.err }

// record reads one file of recorded events: one JSON event a line, plain or
// gzipped.
type record struct {
	name  string
	raw   io.Closer
	lines *bufio.Reader
	line  int // number of the one read last
	buf   []byte

	packed bool
	ended  bool // a line was cut off: nothing follows it
}

// openRecord opens a file, or takes stdin for the name Stdin. What it gets
// goes through tap first.
func openRecord(name string, stdin io.Reader, tap io.Writer) (*record, error) {
	r := &record{name: name, raw: io.NopCloser(nil)}
	source := stdin
	if name != Stdin {
		file, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("read events: %w", err)
		}
		source, r.raw = file, file
	}
	plain := bufio.NewReaderSize(io.TeeReader(source, tap), 1<<16)
	r.lines = plain
	// By its first bytes: a name says nothing of standard input.
	if magic, err := plain.Peek(2); err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		packed, err := gzip.NewReader(plain)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("read events of %q: %w", name, err), r.close())
		}
		r.lines, r.packed = bufio.NewReaderSize(packed, 1<<16), true
	}
	return r, nil
}

func (r *record) close() error { return r.raw.Close() }

// next gives the next event. At the end it is io.EOF; a line that is no event
// is a *lineError, and one that the end of the file cut off wraps errCut.
// Whatever else goes wrong ends the record.
func (r *record) next() (*api.GetEventsResponse, error) {
	for !r.ended {
		text, err := r.readLine()
		cut := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		switch {
		case cut && len(text) == 0 && errors.Is(err, io.EOF):
			return nil, io.EOF
		case err != nil && !cut:
			return nil, err
		case len(text) == 0 && !cut:
			continue
		}
		r.ended = cut
		ev := new(api.GetEventsResponse)
		bad := protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(text, ev)
		switch {
		case bad != nil && cut:
			bad = errCut
		case bad == nil && ev.GetTime() == nil:
			bad = errors.New("an event without a time")
		case bad != nil:
			bad = fmt.Errorf("no event: %w", bad)
		}
		if bad != nil {
			return nil, &lineError{r.name, r.line, bad}
		}
		return ev, nil
	}
	return nil, io.EOF
}

// readLine reads a line without its end, whole or not at all. Beside a line
// that the end of the file cut off it gives io.EOF or io.ErrUnexpectedEOF. The
// line is valid until the next call.
func (r *record) readLine() ([]byte, error) {
	r.line++
	r.buf = r.buf[:0]
	long := false
	for {
		part, err := r.lines.ReadSlice('\n')
		if long = long || len(r.buf)+len(part) > maxLine; !long {
			r.buf = append(r.buf, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case long && (err == nil || errors.Is(err, io.EOF)):
			return nil, &lineError{r.name, r.line, fmt.Errorf("longer than %d bytes", maxLine)}
		case err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
			return nil, fmt.Errorf("read events of %q: %w", r.name, err)
		}
		return trimEnd(r.buf), err
	}
}

func trimEnd(line []byte) []byte {
	for n := len(line); n > 0 && (line[n-1] == '\n' || line[n-1] == '\r' || line[n-1] == ' '); n-- {
		line = line[:n-1]
	}
	return line
}
