package store

import (
	"errors"
	"fmt"
	"strconv"

	"go.etcd.io/bbolt"
)

// schema is the version of what the buckets hold. Whatever changes the fields
// of a row, one more among them, raises it.
const schema = 8

// migrations bring the rows of a schema, the index, up to the next one. They
// run in one transaction with the number's change. What has none needs none:
// schemas 2 and 4 to 8 only added fields, which are unknown in older rows.
var migrations = map[int]func(*bbolt.Tx) error{2: listPolicies}

// generation2 is a generation of schema 2, which had one policy.
type generation2 struct {
	Generation
	Policy string `msgpack:"policy"`
}

// listPolicies gives each generation a list of policies in place of its one.
func listPolicies(b *bbolt.Tx) error {
	var c codec
	c.init()
	rows := b.Bucket(generationsBucket)
	changed := map[string][]byte{} // a bucket must not change while it is walked
	err := rows.ForEach(func(key, value []byte) error {
		var g generation2
		err := c.decode(value, &g, maxOther)
		if err == nil {
			g.Policies = []string{g.Policy}
			changed[string(key)], err = c.encode(&g.Generation, maxOther)
		}
		if err != nil {
			return fmt.Errorf("generation %.20q: %w", key, err)
		}
		return nil
	})
	for key, value := range changed {
		err = errors.Join(err, rows.Put([]byte(key), value))
	}
	return err
}

// errOlder is returned for rows of an older schema, in a transaction that
// cannot write.
var errOlder = errors.New("the rows are of an older schema")

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

// readSchema gives the schema of the rows, which is one that this profile
// knows. It is asked in each transaction: a newer profile may have come between
// two of them.
func readSchema(b *bbolt.Tx) (int, error) {
	meta := b.Bucket(metaBucket)
	if meta == nil {
		return 0, fmt.Errorf("%w: a bbolt file without the bucket %q", ErrNotDatabase, metaBucket)
	}
	text := meta.Get(schemaKey)
	have, err := strconv.ParseUint(string(text), 10, 31)
	switch {
	case err != nil || have == 0:
		return 0, fmt.Errorf("%w: its schema is %.20q", ErrNotDatabase, text)
	case have > schema:
		return 0, &SchemaError{Have: int(have), Know: schema}
	}
	return int(have), nil
}

// migrate brings rows of an older schema up to date, if b can write.
func migrate(b *bbolt.Tx, have int) error {
	if have == schema {
		return nil
	}
	if !b.Writable() {
		return errOlder
	}
	for ; have < schema; have++ {
		if step := migrations[have]; step != nil {
			if err := step(b); err != nil {
				return fmt.Errorf("bring schema %d up to %d: %w", have, have+1, err)
			}
		}
	}
	return b.Bucket(metaBucket).Put(schemaKey, strconv.AppendInt(nil, schema, 10))
}
