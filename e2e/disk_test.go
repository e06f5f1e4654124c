package e2e

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// disk tells how long the disk under the tests takes to keep a byte, which
// whatever else uses it may make much.
type disk struct {
	mu    sync.Mutex
	syncs []span
	now   time.Time // when the one under way began
}

func startDisk(t *testing.T) *disk {
	f, err := os.Create(filepath.Join(t.TempDir(), "byte"))
	if err != nil {
		t.Fatal(err)
	}
	d := &disk{}
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		defer f.Close()
		for {
			if err := d.sync(f); err != nil {
				t.Errorf("keep a byte: %v", err)
				return
			}
			select {
			case <-quit:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	t.Cleanup(func() { close(quit); <-ended })
	return d
}

func (d *disk) sync(f *os.File) error {
	from := time.Now()
	d.mu.Lock()
	d.now = from
	d.mu.Unlock()
	_, err := f.WriteAt([]byte{byte(from.UnixMilli())}, 0)
	if err == nil {
		err = f.Sync()
	}
	d.mu.Lock()
	d.syncs, d.now = append(d.syncs, span{from, time.Now()}), time.Time{}
	d.mu.Unlock()
	return err
}

// slowest is the longest that one took which had not ended before since.
func (d *disk) slowest(since time.Time) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	longest := time.Duration(0)
	if !d.now.IsZero() {
		longest = time.Since(d.now)
	}
	for _, s := range d.syncs {
		if s.to.After(since) {
			longest = max(longest, s.to.Sub(s.from))
		}
	}
	return longest
}
