package enforcer

import (
	"encoding/json"
	"strconv"
	"time"
)

// Rows are written as JSON by hand: by reflection that takes most of the time
// of a large report. What is written is byte for byte what encoding/json writes
// by the tags of the types, to which a test holds it.

// AppendJSON appends the row as encoding/json would write it. It fails where
// that does: on a time that RFC 3339 cannot say.
func (r *Row) AppendJSON(to []byte) ([]byte, error) {
	w := rowWriter{buf: to}
	w.text(`{"scope":`, r.Scope)
	w.text(`,"path":`, r.Path)
	w.optional(`,"path_base64":`, r.PathBase64)
	w.text(`,"verdict":`, r.Verdict)
	w.texts(`,"reasons":`, r.Reasons)
	w.number(`,"runs":{"seen":`, r.Runs.Seen)
	w.number(`,"complete":`, r.Runs.Complete)
	writeList(&w, `},"network":`, r.Network, (*rowWriter).use)
	writeList(&w, `,"attempts":`, r.Attempts, (*rowWriter).attempt)
	writeList(&w, `,"entries":`, r.Entries, (*rowWriter).entry)
	w.time(`,"first_seen":`, r.FirstSeen)
	w.time(`,"last_seen":`, r.LastSeen)
	if r.ReplacedSince {
		w.raw(`,"replaced_since":true`)
	}
	if len(r.Able) > 0 {
		w.texts(`,"able":`, r.Able)
	}
	w.optional(`,"family":`, r.Family)
	w.raw(`}`)
	return w.buf, w.err
}

// rowWriter appends fields, each with what stands before its value. It keeps
// the first error.
type rowWriter struct {
	buf []byte
	err error
}

func (w *rowWriter) use(u *NetworkUse) {
	w.text(`{"family":`, u.Family)
	w.text(`,"type":`, u.Type)
	w.number(`,"count":`, u.Count)
	w.time(`,"first":`, u.First)
	w.time(`,"last":`, u.Last)
	if len(u.Protocols) > 0 {
		w.texts(`,"protocols":`, u.Protocols)
	}
	if len(u.Reach) > 0 {
		w.texts(`,"reach":`, u.Reach)
	}
	if len(u.Destinations) > 0 {
		w.texts(`,"destinations":`, u.Destinations)
	}
	if u.Inherited != 0 {
		w.number(`,"inherited":`, u.Inherited)
	}
	if u.AtLeast {
		w.raw(`,"at_least":true`)
	}
	w.raw(`}`)
}

func (w *rowWriter) attempt(a *AttemptRow) {
	w.raw(`{`)
	if a.Family != "" {
		w.text(`"family":`, a.Family)
		w.raw(`,`)
	}
	if a.Type != "" {
		w.text(`"type":`, a.Type)
		w.raw(`,`)
	}
	w.text(`"stage":`, a.Stage)
	w.number(`,"count":`, a.Count)
	if !a.First.IsZero() {
		w.time(`,"first":`, a.First)
	}
	if !a.Last.IsZero() {
		w.time(`,"last":`, a.Last)
	}
	w.raw(`}`)
}

func (w *rowWriter) entry(e *EntryRow) {
	w.text(`{"name":`, e.Name)
	w.optional(`,"name_base64":`, e.NameBase64)
	w.number(`,"runs":`, e.Runs)
	w.raw(`}`)
}

func writeList[T any](w *rowWriter, before string, all []T, write func(*rowWriter, *T)) {
	w.raw(before)
	if all == nil {
		w.raw(`null`)
		return
	}
	sep := `[`
	for i := range all {
		w.raw(sep)
		write(w, &all[i])
		sep = `,`
	}
	w.end(sep)
}

func (w *rowWriter) texts(before string, all []string) {
	w.raw(before)
	if all == nil {
		w.raw(`null`)
		return
	}
	sep := `[`
	for _, s := range all {
		w.text(sep, s)
		sep = `,`
	}
	w.end(sep)
}

// end closes a list, which is empty if nothing was written since its `[`.
func (w *rowWriter) end(sep string) {
	if sep == `[` {
		w.raw(sep)
	}
	w.raw(`]`)
}

func (w *rowWriter) raw(s string) { w.buf = append(w.buf, s...) }

func (w *rowWriter) optional(before, s string) {
	if s != "" {
		w.text(before, s)
	}
}

func (w *rowWriter) text(before, s string) {
	w.raw(before)
	for i := range len(s) {
		if !asIs[s[i]] {
			quoted, err := json.Marshal(s)
			w.fail(err)
			w.buf = append(w.buf, quoted...)
			return
		}
	}
	w.buf = append(w.buf, '"')
	w.buf = append(w.buf, s...)
	w.buf = append(w.buf, '"')
}

// asIs are the bytes that stand for themselves in a JSON string, wherever they
// are in it.
var asIs = func() (plain [256]bool) {
	for c := byte(' '); c < 0x7f; c++ {
		plain[c] = true
	}
	for _, c := range []byte(`"\<>&`) { // encoding/json escapes the last three for HTML's sake
		plain[c] = false
	}
	return plain
}()

func (w *rowWriter) number(before string, n uint64) {
	w.raw(before)
	w.buf = strconv.AppendUint(w.buf, n, 10)
}

func (w *rowWriter) time(before string, t time.Time) {
	w.raw(before)
	w.buf = append(w.buf, '"')
	text, err := t.AppendText(w.buf)
	if err != nil {
		w.fail(err)
		return
	}
	w.buf = append(text, '"')
}

func (w *rowWriter) fail(err error) {
	if w.err == nil {
		w.err = err
	}
}
