package sensor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// On a machine without a bpffs each of these mounts and unmounts one: nobody's
// directory may be made below a mount that has gone, nor be missed.
func TestPinDirectoriesComeAndGoSideBySide(t *testing.T) {
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			for range 40 {
				pins, shared, err := usePins(fmt.Sprintf("pins-test-%d", i))
				if err != nil {
					t.Errorf("use: %v", err)
					return
				}
				if !isBPFFS(pins.path) {
					t.Errorf("%s is in no bpffs", pins.path)
				}
				shared.close()
				if err := pins.release(); err != nil {
					t.Errorf("release: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	for i := range 6 {
		path := fmt.Sprintf("%s/pins-test-%d", ownDir, i)
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is left", path)
		}
	}
	if left := belowTheMount(t); left != nil {
		t.Errorf("%v left where no bpffs is mounted", left)
	}
}

// belowTheMount is what lies in the mount point itself, nil while something is
// mounted there.
func belowTheMount(t *testing.T) []os.DirEntry {
	lock, err := lockAt(filepath.Dir(ownBPFFS), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if isBPFFS(ownBPFFS) {
		return nil
	}
	left, _ := os.ReadDir(ownBPFFS)
	return left
}
