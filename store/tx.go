package store

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"strings"

	"go.etcd.io/bbolt"
)

// Tx is a transaction. It is valid only within the View or Update that made
// it, and not safe for concurrent use. What it gives out are copies that stay
// valid.
type Tx struct {
	codec       codec
	key         []byte // reused; bbolt copies keys
	evidence    *bbolt.Bucket
	sessions    *bbolt.Bucket
	generations *bbolt.Bucket
}

func newTx(b *bbolt.Tx) (*Tx, error) {
	tx := new(Tx)
	err := guard(func() error {
		have, err := readSchema(b)
		if err != nil {
			return err
		}
		tx.evidence = b.Bucket(evidenceBucket)
		tx.sessions = b.Bucket(sessionsBucket)
		tx.generations = b.Bucket(generationsBucket)
		if tx.evidence == nil || tx.sessions == nil || tx.generations == nil {
			return fmt.Errorf("%w: a bucket is missing", ErrNotDatabase)
		}
		return migrate(b, have)
	})
	if err != nil {
		return nil, err
	}
	// Paths come in any order: measured, this leaves the smallest file both for
	// sorted and for random ones.
	tx.evidence.FillPercent = 0.7
	tx.codec.init()
	return tx, nil
}

// PutEvidence writes the row of e.Key and e.Session, in place of what was
// there. It keeps nothing of e, which may change afterwards. Path, scope and session must not be empty nor hold a NUL, and have
// together at most 32,766 bytes. A row with more elements than could be read
// again, some 260,000, is refused.
func (tx *Tx) PutEvidence(e *Evidence) error {
	var err error
	if tx.key, err = appendKey(tx.key[:0], e.Key.Path, e.Key.Scope, e.Session); err == nil {
		err = tx.put(tx.evidence, tx.key, e, maxEvidence)
	}
	if err != nil {
		return fmt.Errorf("store evidence of %.200q: %w", e.Key.Path, err)
	}
	return nil
}

// Executables goes through all evidence, one key at a time, sorted by path,
// then scope; the rows of a key are sorted by session. Only one key's rows are
// in memory. An error ends it. Nothing may be put meanwhile.
func (tx *Tx) Executables() iter.Seq2[[]Evidence, error] {
	return func(yield func([]Evidence, error) bool) {
		var rows []Evidence
		for e, err := range scan(tx.evidence, nil, tx.decodeEvidence) {
			if err != nil {
				yield(nil, err)
				return
			}
			if len(rows) > 0 && rows[0].Key != e.Key {
				if !yield(rows, nil) {
					return
				}
				rows = nil
			}
			rows = append(rows, e)
		}
		if len(rows) > 0 {
			yield(rows, nil)
		}
	}
}

// Evidence gives all rows of one path, in every scope, sorted by scope, then
// session; none is no error.
func (tx *Tx) Evidence(path string) ([]Evidence, error) {
	prefix, err := appendKey(nil, path)
	if err != nil {
		return nil, fmt.Errorf("read evidence of %.200q: %w", path, err)
	}
	return collect(scan(tx.evidence, append(prefix, 0), tx.decodeEvidence))
}

// PutSession writes a session, in place of what was there under its ID.
func (tx *Tx) PutSession(s *Session) error {
	key, err := appendKey(nil, s.ID)
	if err == nil {
		err = tx.put(tx.sessions, key, s, maxOther)
	}
	if err != nil {
		return fmt.Errorf("store session %.200q: %w", s.ID, err)
	}
	return nil
}

// Sessions gives all sessions, sorted by ID.
func (tx *Tx) Sessions() ([]Session, error) {
	return collect(scan(tx.sessions, nil, func(key, value []byte, s *Session) error {
		err := tx.codec.decode(value, s, maxOther)
		if err == nil && s.ID != string(key) {
			err = fmt.Errorf("it says it is %.200q", s.ID)
		}
		if err != nil {
			return fmt.Errorf("read session %.200q: %w", key, err)
		}
		return nil
	}))
}

func (tx *Tx) put(b *bbolt.Bucket, key []byte, row any, bound int) error {
	value, err := tx.codec.encode(row, bound)
	if err != nil {
		return err
	}
	return guard(func() error { return b.Put(key, value) })
}

// scan goes through the rows whose keys begin with prefix, in order. The first
// error is the last it gives.
func scan[T any](b *bbolt.Bucket, prefix []byte, decode func(key, value []byte, row *T) error) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		cursor := b.Cursor()
		next := func() ([]byte, []byte) { return cursor.Seek(prefix) }
		var row, zero T
		end := false
		read := func() error {
			key, value := next()
			if end = key == nil || !bytes.HasPrefix(key, prefix); end {
				return nil
			}
			return decode(key, value, &row)
		}
		for {
			row = zero
			err := guard(read)
			if end || !yield(row, err) || err != nil {
				return
			}
			next = cursor.Next
		}
	}
}

func collect[T any](rows iter.Seq2[T, error]) ([]T, error) {
	var all []T
	for row, err := range rows {
		if err != nil {
			return nil, err
		}
		all = append(all, row)
	}
	return all, nil
}

func (tx *Tx) decodeEvidence(key, value []byte, e *Evidence) error {
	err := tx.codec.decode(value, e, maxEvidence)
	path, rest, _ := strings.Cut(string(key), "\x00")
	scope, session, _ := strings.Cut(rest, "\x00")
	if err == nil && (path == "" || scope == "" || session == "" || strings.IndexByte(session, 0) >= 0) {
		err = errors.New("its key is not a path, a scope and a session")
	}
	if err != nil {
		return fmt.Errorf("read evidence %.200q: %w", key, err)
	}
	e.Key, e.Session = Key{Path: path, Scope: scope}, session
	return nil
}

// appendKey joins parts with NUL, below every other byte, so that keys sort as
// their parts do.
func appendKey(key []byte, parts ...string) ([]byte, error) {
	for i, part := range parts {
		if part == "" {
			return key, errors.New("a part of its key is empty")
		}
		if strings.IndexByte(part, 0) >= 0 {
			return key, fmt.Errorf("%.200q holds a NUL", part)
		}
		if i > 0 {
			key = append(key, 0)
		}
		key = append(key, part...)
	}
	if len(key) > bbolt.MaxKeySize {
		return key, fmt.Errorf("its key has %d bytes, and %d is the most", len(key), bbolt.MaxKeySize)
	}
	return key, nil
}
