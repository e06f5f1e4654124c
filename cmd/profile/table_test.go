package main

import (
	"strings"
	"testing"

	"github.com/jedib0t/go-pretty/v6/text"
)

func TestFit(t *testing.T) {
	for _, tc := range []struct {
		name   string
		widths []int
		width  int
		want   int // 0 is that they do not fit
	}{
		{"all fits", []int{10, 20}, 80, 20},
		{"exactly", []int{10, 20}, 34, 20},
		{"only the widest is narrowed", []int{10, 100, 5}, 80, 59},
		{"several are", []int{100, 100, 5}, 80, 34},
		{"as narrow as it gets", []int{100, 100, 5}, 2*narrowest + 5 + 3*padding, narrowest},
		{"too narrow for any", []int{100, 100, 5}, 2*narrowest + 5 + 3*padding - 1, 0},
	} {
		got, ok := fit(tc.widths, tc.width)
		if !ok {
			got = 0
		}
		if got != tc.want {
			t.Errorf("%s: columns of %v fit %d at %d, want %d", tc.name, tc.widths, tc.width, got, tc.want)
		}
	}
}

// On a terminal too narrow for columns nothing is lost, and no line is longer
// than it is wide, however wide its characters are.
func TestTheListFits(t *testing.T) {
	path := "/opt/漢字漢字漢字漢字漢字/" + strings.Repeat("long", 20)
	for _, width := range []int{8, 20, 33, 60} {
		var out strings.Builder
		s := newTable(&out, "executable", "verdict", "network")
		s.row(path, "quiet", "")
		s.row("/bin/a", "network", "inet/stream ×1 loopback to 127.0.0.1:80 127.0.0.1:443")
		s.printList(width)
		for line := range strings.Lines(out.String()) {
			if n := text.StringWidth(strings.TrimSuffix(line, "\n")); n > width {
				t.Errorf("at %d columns %q takes %d", width, line, n)
			}
		}
		joined := strings.Join(strings.Fields(out.String()), "")
		for _, part := range []string{path, "verdict:quiet", "127.0.0.1:443"} {
			if !strings.Contains(joined, part) {
				t.Errorf("at %d columns %q is lost: %q", width, part, out.String())
			}
		}
		if strings.Contains(joined, "quietnetwork") {
			t.Errorf("at %d columns an empty cell is named: %q", width, out.String())
		}
	}
}
