package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/vmihailenco/msgpack/v5/msgpcode"
)

var errForm = errors.New("the value is not of the form of its field")

// unpacker takes msgpack values from the front of rest. After the first error
// it gives only zero values. It takes no more memory than rest can fill: each
// element of an array is at least one byte there.
type unpacker struct {
	rest  []byte
	left  int // how many elements all arrays and maps may still have
	err   error
	words map[string]string // short strings that come again and again
	text  string            // the value, where strings are to be parts of one copy
}

// maxWords bounds the words kept, which a damaged file could make up.
const maxWords = 64

func (u *unpacker) fail(err error) {
	if u.err == nil {
		u.err, u.rest = err, nil
	}
}

// next takes n bytes; it gives none if there are not that many.
func (u *unpacker) next(n int) []byte {
	if n > len(u.rest) {
		u.fail(errCut)
		return nil
	}
	b := u.rest[:n]
	u.rest = u.rest[n:]
	return b
}

func (u *unpacker) code() byte {
	if b := u.next(1); b != nil {
		return b[0]
	}
	return msgpcode.Nil
}

// number takes a big-endian number of 1, 2, 4 or 8 bytes.
func (u *unpacker) number(size int) uint64 {
	b := u.next(size)
	switch len(b) {
	case 1:
		return uint64(b[0])
	case 2:
		return uint64(binary.BigEndian.Uint16(b))
	case 4:
		return uint64(binary.BigEndian.Uint32(b))
	case 8:
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (u *unpacker) uint(most uint64) uint64 {
	var v uint64
	switch c := u.code(); {
	case c <= msgpcode.PosFixedNumHigh:
		v = uint64(c)
	case c >= msgpcode.Uint8 && c <= msgpcode.Uint64:
		v = u.number(1 << (c - msgpcode.Uint8))
	default:
		u.fail(errForm)
	}
	if v > most {
		u.fail(errForm)
		return 0
	}
	return v
}

func (u *unpacker) int() int64 {
	if len(u.rest) > 0 {
		switch c := u.rest[0]; {
		case c >= msgpcode.NegFixedNumLow:
			return int64(int8(u.code()))
		case c >= msgpcode.Int8 && c <= msgpcode.Int64:
			size := 1 << (u.code() - msgpcode.Int8)
			shift := 64 - 8*size
			return int64(u.number(size)<<shift) >> shift
		}
	}
	return int64(u.uint(math.MaxInt64))
}

func (u *unpacker) bool() bool {
	c := u.code()
	if c != msgpcode.True && c != msgpcode.False {
		u.fail(errForm)
	}
	return c == msgpcode.True
}

// bytes takes a string, which stays part of the value.
func (u *unpacker) bytes() []byte {
	var n uint64
	switch c := u.code(); {
	case msgpcode.IsFixedString(c):
		n = uint64(c & msgpcode.FixedStrMask)
	case c == msgpcode.Str8, c == msgpcode.Str16, c == msgpcode.Str32:
		n = u.number(1 << (c - msgpcode.Str8))
	default:
		u.fail(errForm)
	}
	if n > uint64(len(u.rest)) {
		u.fail(errCut)
		return nil
	}
	return u.next(int(n))
}

func (u *unpacker) string() string { return string(u.bytes()) }

// word is a string that is one of few.
func (u *unpacker) word() string {
	b := u.bytes()
	if w, ok := u.words[string(b)]; ok {
		return w
	}
	w := string(b)
	if u.words == nil || len(u.words) >= maxWords {
		u.words = map[string]string{}
	}
	u.words[w] = w
	return w
}

// time takes one of the three forms of a timestamp.
func (u *unpacker) time() time.Time {
	form := u.next(2)
	if form == nil {
		return time.Time{}
	}
	length := 0
	switch form[0] {
	case msgpcode.FixExt4:
		length = 4
	case msgpcode.FixExt8:
		length = 8
	case msgpcode.Ext8:
		length = int(form[1])
		form = u.next(1)
	default:
		u.fail(errForm)
		return time.Time{}
	}
	if len(form) == 0 || int8(form[len(form)-1]) != timestamp {
		u.fail(errForm)
		return time.Time{}
	}
	t, err := readTime(u.next(length))
	if err != nil {
		u.fail(err)
	}
	return t
}

// elements takes the header of an array or a map: how many values follow.
func (u *unpacker) elements(each int, n uint64) int {
	if n > uint64(u.left/each) {
		u.fail(errLarge)
		return 0
	}
	if n > uint64(len(u.rest)/each) {
		u.fail(errCut)
		return 0
	}
	u.left -= int(n) * each
	return int(n)
}

// mapLength takes the header of a map: how many keys with their values follow.
func (u *unpacker) mapLength() int {
	var n uint64
	switch c := u.code(); {
	case msgpcode.IsFixedMap(c):
		n = uint64(c & msgpcode.FixedMapMask)
	case c == msgpcode.Map16, c == msgpcode.Map32:
		n = u.number(2 << (c - msgpcode.Map16))
	default:
		u.fail(errForm)
	}
	return u.elements(2, n)
}

// fields takes a map, and calls field for each key, to take its value.
func (u *unpacker) fields(field func(key byte) bool) {
	for range u.mapLength() {
		key := u.bytes()
		if u.err != nil {
			return
		}
		if len(key) != 1 || !field(key[0]) {
			u.fail(fmt.Errorf("unknown field %.20q", key))
			return
		}
	}
}

// unpackAll takes an array, nil for one of nothing.
func unpackAll[T any](u *unpacker, unpack func(*unpacker, *T)) []T {
	var n uint64
	switch c := u.code(); {
	case c == msgpcode.Nil:
	case msgpcode.IsFixedArray(c):
		n = uint64(c & msgpcode.FixedArrayMask)
	case c == msgpcode.Array16, c == msgpcode.Array32:
		n = u.number(2 << (c - msgpcode.Array16))
	default:
		u.fail(errForm)
	}
	length := u.elements(1, n)
	if length == 0 {
		return nil
	}
	all := make([]T, length)
	for i := range all {
		if u.err != nil {
			return nil
		}
		unpack(u, &all[i])
	}
	return all
}
