package main

import (
	"errors"
	"strings"
	"testing"
)

func TestOnlyWhatChangesIsPrintedAgain(t *testing.T) {
	var out strings.Builder
	lines := &changes{w: &out}
	lines.print("generation 1\nkilled ×1: a\n", nil)
	lines.print("generation 1\nkilled ×1: a\n", nil)
	lines.print("generation 1\nkilled ×2: a\nkilled ×1: b\n", nil)
	lines.print("NOT AS IT WAS LOADED\ngeneration 1\nkilled ×2: a\nkilled ×1: b\n", errors.New("it is\x1b[2J gone"))
	lines.print("generation 1\nkilled ×2: a\nkilled ×1: b\n", nil)
	lines.print("NOT AS IT WAS LOADED\ngeneration 1\n", errors.New("it is gone"))
	const want = "generation 1\nkilled ×1: a\nkilled ×2: a\nkilled ×1: b\n" +
		"NOT AS IT WAS LOADED\nit is?[2J gone\nNOT AS IT WAS LOADED\nit is gone\n"
	if out.String() != want {
		t.Errorf("printed\n%q\nwant\n%q", out.String(), want)
	}
}
