package enforcer

import (
	"encoding/base64"
	"fmt"
	"strings"
	"unicode/utf8"
)

// printable returns a path in a form that text formats can hold: each byte
// that is not UTF-8 becomes \xHH, and then whole, the path's base64, is not "".
func printable(path string) (text, whole string) {
	if utf8.ValidString(path) {
		return path, ""
	}
	var b strings.Builder
	for i := 0; i < len(path); {
		r, size := utf8.DecodeRuneInString(path[i:])
		if r == utf8.RuneError && size == 1 {
			fmt.Fprintf(&b, `\x%02x`, path[i])
		} else {
			b.WriteString(path[i : i+size])
		}
		i += size
	}
	return b.String(), base64.StdEncoding.EncodeToString([]byte(path))
}
