package store

import (
	"fmt"
	"strconv"

	"go.etcd.io/bbolt"
)

// schema is the version of what the buckets hold. Whatever changes the fields
// of a row, one more among them, raises it.
const schema = 1

var (
	metaBucket        = []byte("meta")
	schemaKey         = []byte("schema") // its value is a decimal number
	evidenceBucket    = []byte("evidence")
	sessionsBucket    = []byte("sessions")
	generationsBucket = []byte("generations")
)

// SchemaError is returned for a database that a newer profile has written.
type SchemaError struct {
	Have int // the schema of the file
	Know int // the newest one that this profile can read
}

func (e *SchemaError) Error() string {
	return fmt.Sprintf("the database has schema %d, and this profile knows schemas up to %d: use a newer profile", e.Have, e.Know)
}

// writeSchema makes the buckets of an empty database.
func writeSchema(b *bbolt.Tx) error {
	for _, name := range [][]byte{evidenceBucket, sessionsBucket, generationsBucket} {
		if _, err := b.CreateBucket(name); err != nil {
			return err
		}
	}
	meta, err := b.CreateBucket(metaBucket)
	if err != nil {
		return err
	}
	return meta.Put(schemaKey, strconv.AppendInt(nil, schema, 10))
}

// checkSchema finds out whether the rows can be read. It is asked in each
// transaction: a newer profile may have come between two of them.
func checkSchema(b *bbolt.Tx) error {
	meta := b.Bucket(metaBucket)
	if meta == nil {
		return fmt.Errorf("%w: a bbolt file without the bucket %q", ErrNotDatabase, metaBucket)
	}
	text := meta.Get(schemaKey)
	have, err := strconv.ParseUint(string(text), 10, 31)
	switch {
	case err != nil || have == 0:
		return fmt.Errorf("%w: its schema is %.20q", ErrNotDatabase, text)
	case have > schema:
		return &SchemaError{Have: int(have), Know: schema}
	}
	// Older schemas are brought up to date here, once there are any.
	return nil
}
