package main

import "testing"

func TestFit(t *testing.T) {
	for _, tc := range []struct {
		name   string
		widths []int
		width  int
		want   int
	}{
		{"all fits", []int{10, 20}, 80, 20},
		{"exactly", []int{10, 20}, 34, 20},
		{"only the widest is narrowed", []int{10, 100, 5}, 80, 59},
		{"several are", []int{100, 100, 5}, 80, 34},
		{"too narrow for any", []int{100, 100, 100}, 10, narrowest},
	} {
		if got := fit(tc.widths, tc.width); got != tc.want {
			t.Errorf("%s: columns of %v fit %d at %d, want %d", tc.name, tc.widths, tc.width, got, tc.want)
		}
	}
}
