package enforcer

import "iter"

// mostAhead is how many items are handed over in one piece, and piecesAhead how
// many pieces may wait: enough that neither side waits for the other, few enough
// that little is in memory.
const (
	mostAhead   = 256
	piecesAhead = 4
)

// ahead goes through a sequence in a goroutine of its own, while what it gave
// is still being worked on. The first item is handed over at once, later ones in
// larger and larger pieces. The goroutine has ended when the loop over it has,
// however that ends.
func ahead[T any](items iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		pieces := make(chan []T, piecesAhead)
		enough := make(chan struct{})
		var failed error // once pieces is closed
		go func() {
			defer close(pieces)
			failed = handOver(items, pieces, enough)
		}()
		defer func() {
			close(enough)
			for range pieces {
			}
		}()
		for piece := range pieces {
			for _, item := range piece {
				if !yield(item, nil) {
					return
				}
			}
		}
		if failed != nil {
			var none T
			yield(none, failed)
		}
	}
}

func handOver[T any](items iter.Seq2[T, error], to chan<- []T, enough <-chan struct{}) error {
	var piece []T
	size := 1
	for item, err := range items {
		if err != nil {
			to <- piece // what came before it counts
			return err
		}
		if piece = append(piece, item); len(piece) < size {
			continue
		}
		select {
		case to <- piece:
		case <-enough:
			return nil
		}
		size = min(2*size, mostAhead)
		piece = make([]T, 0, size)
	}
	to <- piece
	return nil
}
