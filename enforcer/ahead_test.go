package enforcer

import (
	"errors"
	"iter"
	"slices"
	"testing"

	"go.uber.org/goleak"
)

func counting(n int, err error, ended *bool) iter.Seq2[int, error] {
	return func(yield func(int, error) bool) {
		defer func() { *ended = true }()
		for i := range n {
			if !yield(i, nil) {
				return
			}
		}
		if err != nil {
			yield(0, err)
		}
	}
}

func TestReadingAheadGivesTheSameInTheSameOrder(t *testing.T) {
	defer goleak.VerifyNone(t)
	broken := errors.New("broken")
	for _, n := range []int{0, 1, 2, 3, mostAhead, 5 * mostAhead, 20*mostAhead + 7} {
		for _, want := range []error{nil, broken} {
			ended := false
			var got []int
			var err error
			for i, e := range ahead(counting(n, want, &ended)) {
				if e != nil {
					err = e
					continue
				}
				got = append(got, i)
			}
			if len(got) != n || !slices.IsSorted(got) || err != want || !ended {
				t.Errorf("of %d with error %v: got %d, error %v, ended %v", n, want, len(got), err, ended)
			}
		}
	}
}

func TestReadingAheadEndsWithItsLoop(t *testing.T) {
	defer goleak.VerifyNone(t)
	for _, stop := range []int{0, 1, 300, 19 * mostAhead} {
		ended := false
		for i := range ahead(counting(20*mostAhead, errors.New("not met"), &ended)) {
			if i == stop {
				break
			}
		}
		if !ended {
			t.Errorf("stopped at %d: the sequence goes on", stop)
		}
	}
	ended := false
	func() {
		defer func() { _ = recover() }()
		for range ahead(counting(20*mostAhead, nil, &ended)) {
			panic("in the loop")
		}
	}()
	if !ended {
		t.Error("after a panic the sequence goes on")
	}
}
