package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/vmihailenco/msgpack/v5"
	"github.com/vmihailenco/msgpack/v5/msgpcode"
)

// Bounds of one value: how many elements all its arrays and maps may have
// together, so that a few hostile bytes cannot ask for much memory. A tally
// takes some 350 bytes in memory.
const (
	maxEvidence = 1 << 18
	maxOther    = 1 << 20
	maxDepth    = 8
)

// timestamp is the extension type of a time in msgpack.
const timestamp = -1

func init() {
	// msgpack gives times in the zone of the machine that reads them.
	msgpack.RegisterExtDecoder(timestamp, time.Time{}, decodeTime)
}

// codec turns rows into msgpack and back, reusing its buffers.
type codec struct {
	buffer  bytes.Buffer
	encoder *msgpack.Encoder
	reader  bytes.Reader
	decoder *msgpack.Decoder
	packer
	unpacker
}

func (c *codec) init() {
	c.encoder = msgpack.NewEncoder(&c.buffer)
	c.encoder.UseCompactInts(true)
	c.decoder = msgpack.NewDecoder(&c.reader)
	// A field that is not known is damage: a newer schema would have said so.
	c.decoder.DisallowUnknownFields(true)
}

// encode gives bytes of their own, since bbolt keeps them until the commit. It
// refuses what decode would.
func (c *codec) encode(row any, bound int) ([]byte, error) {
	c.buf, c.count = c.buf[:0], 0
	switch row := row.(type) {
	case *Evidence:
		packEvidence(&c.packer, row)
	case *Generation:
		packGeneration(&c.packer, row)
	default:
		return c.encodeOther(row, bound)
	}
	if c.count > bound {
		return nil, errLarge
	}
	return bytes.Clone(c.buf), nil
}

func (c *codec) encodeOther(row any, bound int) ([]byte, error) {
	c.buffer.Reset()
	if err := c.encoder.Encode(row); err != nil {
		return nil, err
	}
	value := c.buffer.Bytes()
	// A value of fewer bytes cannot have more elements.
	if len(value) > bound {
		if err := checkValue(value, bound); err != nil {
			return nil, err
		}
	}
	return bytes.Clone(value), nil
}

// decode fills row, which must be zero.
func (c *codec) decode(value []byte, row any, bound int) error {
	switch row := row.(type) {
	case *Evidence:
		return c.unpackEvidence(value, row, bound)
	case *Generation:
		return c.unpackGeneration(value, row, bound)
	}
	if err := checkValue(value, bound); err != nil {
		return err
	}
	c.reader.Reset(value)
	// The library panics where it finds nil in place of a time.
	return guard(func() error { return c.decoder.Decode(row) })
}

// decodeTime reads the three forms of a msgpack timestamp, in UTC. The zero
// time comes back as the zero time.
func decodeTime(d *msgpack.Decoder, v reflect.Value, length int) error {
	var b [12]byte
	if length > len(b) {
		return fmt.Errorf("a time of %d bytes", length)
	}
	if err := d.ReadFull(b[:length]); err != nil {
		return err
	}
	t, err := readTime(b[:length])
	if err == nil {
		v.Set(reflect.ValueOf(t))
	}
	return err
}

// readTime reads the bytes of a timestamp.
func readTime(b []byte) (time.Time, error) {
	switch len(b) {
	case 4:
		return time.Unix(int64(binary.BigEndian.Uint32(b)), 0).UTC(), nil
	case 8:
		whole := binary.BigEndian.Uint64(b)
		return time.Unix(int64(whole&(1<<34-1)), int64(whole>>34)).UTC(), nil
	case 12:
		return time.Unix(int64(binary.BigEndian.Uint64(b[4:])), int64(binary.BigEndian.Uint32(b))).UTC(), nil
	}
	return time.Time{}, fmt.Errorf("a time of %d bytes", len(b))
}

var (
	errCut     = errors.New("the value is cut short")
	errTrail   = errors.New("bytes follow the value")
	errDeep    = errors.New("the value is nested too deeply")
	errLarge   = errors.New("the value has too many elements")
	errUnknown = errors.New("the value is not msgpack")
)

// checkValue reports whether b is one msgpack value within the bounds. The
// library cannot be trusted with hostile bytes: it makes room for as many
// elements as an array says it has before it has read one.
func checkValue(b []byte, bound int) error {
	rest, err := skip(b, &bound, maxDepth)
	if err == nil && len(rest) > 0 {
		err = errTrail
	}
	return err
}

// skip gives what follows the first value in b.
func skip(b []byte, bound *int, depth int) ([]byte, error) {
	size, elements, err := measure(b)
	switch {
	case err != nil:
		return nil, err
	case size > uint64(len(b)):
		return nil, errCut
	case elements > 0 && depth == 0:
		return nil, errDeep
	case elements > uint64(*bound):
		return nil, errLarge
	}
	*bound -= int(elements)
	b = b[size:]
	for range elements {
		if b, err = skip(b, bound, depth-1); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// measure tells how many bytes the first value in b takes, without its
// elements, and how many elements follow; a key and its value are two.
func measure(b []byte) (size, elements uint64, err error) {
	if len(b) == 0 {
		return 0, 0, errCut
	}
	c := b[0]
	switch {
	case msgpcode.IsFixedNum(c), c == msgpcode.Nil, c == msgpcode.False, c == msgpcode.True:
		return 1, 0, nil
	case msgpcode.IsFixedString(c):
		return 1 + uint64(c&msgpcode.FixedStrMask), 0, nil
	case msgpcode.IsFixedArray(c):
		return 1, uint64(c & msgpcode.FixedArrayMask), nil
	case msgpcode.IsFixedMap(c):
		return 1, 2 * uint64(c&msgpcode.FixedMapMask), nil
	}
	form, ok := forms[c]
	if !ok {
		return 0, 0, errUnknown
	}
	if len(b) <= form.length {
		return 0, 0, errCut
	}
	var length uint64
	for _, digit := range b[1 : 1+form.length] {
		length = length<<8 | uint64(digit)
	}
	return form.size + length*form.bytes, length * form.elements, nil
}

// forms describes the msgpack codes that stand for one form each: how many
// bytes the length has that follows the code, how many bytes the value has
// without what the length counts, and what the length counts one by one. Only
// what the encoder writes is there.
var forms = map[byte]struct {
	length                int
	size, bytes, elements uint64
}{
	msgpcode.Uint8: {size: 2}, msgpcode.Uint16: {size: 3}, msgpcode.Uint32: {size: 5}, msgpcode.Uint64: {size: 9},
	msgpcode.Int8: {size: 2}, msgpcode.Int16: {size: 3}, msgpcode.Int32: {size: 5}, msgpcode.Int64: {size: 9},
	msgpcode.Str8: {length: 1, size: 2, bytes: 1}, msgpcode.Str16: {length: 2, size: 3, bytes: 1}, msgpcode.Str32: {length: 4, size: 5, bytes: 1},
	msgpcode.Array16: {length: 2, size: 3, elements: 1}, msgpcode.Array32: {length: 4, size: 5, elements: 1},
	msgpcode.Map16: {length: 2, size: 3, elements: 2}, msgpcode.Map32: {length: 4, size: 5, elements: 2},
	msgpcode.FixExt4: {size: 6}, msgpcode.FixExt8: {size: 10}, msgpcode.Ext8: {length: 1, size: 3, bytes: 1},
}
