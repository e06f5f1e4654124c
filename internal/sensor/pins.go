package sensor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"profile/internal/sensor/bpf"
)

const maxPolicies = 8 // MAX_POLICIES of bpf/policy.h

// pinDir is the directory of a bpffs that holds what is in force for one
// database: the maps that every policy shares, and a directory a policy.
type pinDir struct {
	name string
	path string
	held *os.File // a shared lock, while an observer uses the maps
}

// lockDir takes a flock on a directory. A bpffs knows flock like any other
// file system, and the lock goes with the process.
func lockDir(path string, how int) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), how); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// lockAt takes the lock of the directory that is at path once the lock is held.
// Whoever held it before may have removed the directory: then it is made anew,
// or, without a way to make it, missed.
func lockAt(path string, prepare func() error) (*os.File, error) {
	for {
		if prepare != nil {
			if err := prepare(); err != nil {
				return nil, err
			}
		}
		lock, err := lockDir(path, unix.LOCK_EX)
		if errors.Is(err, fs.ErrNotExist) && prepare != nil {
			continue
		}
		if err != nil {
			return nil, err
		}
		mine, err := lock.Stat()
		if err == nil {
			if now, err := os.Stat(path); err == nil && os.SameFile(mine, now) {
				return lock, nil
			}
		}
		lock.Close()
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
	}
}

// lockRoot takes the lock under which anything pinned is changed.
func lockRoot(create bool) (root string, lock *os.File, err error) {
	for {
		if root = pinRoot(); create {
			if root, err = makePinRoot(); err != nil {
				return "", nil, err
			}
		}
		if root == "" {
			return "", nil, fs.ErrNotExist
		}
		lock, err = lockAt(root, nil)
		if errors.Is(err, fs.ErrNotExist) && create {
			continue
		}
		return root, lock, err
	}
}

// sharedMaps are those that every policy of a database and its observers use.
type sharedMaps struct {
	maps map[string]*ebpf.Map
}

func (s *sharedMaps) replacements(names ...string) map[string]*ebpf.Map {
	m := map[string]*ebpf.Map{}
	for _, n := range names {
		m[n] = s.maps[n]
	}
	return m
}

func (s *sharedMaps) close() {
	for _, m := range s.maps {
		m.Close()
	}
}

var sharedNames = []string{"lists", "prefixes", "scopes", "epoch"}

// openShared opens the shared maps of a directory, and makes them where they
// are missing and create says so. Without it, fs.ErrNotExist is theirs.
func openShared(dir string, create bool) (*sharedMaps, error) {
	spec, err := loadObject()
	if err != nil {
		return nil, err
	}
	s := &sharedMaps{maps: map[string]*ebpf.Map{}}
	for _, name := range sharedNames {
		path := filepath.Join(dir, name)
		m, err := ebpf.LoadPinnedMap(path, nil)
		if errors.Is(err, fs.ErrNotExist) && create {
			if m, err = ebpf.NewMap(spec.Maps[name]); err == nil {
				if err = m.Pin(path); err != nil {
					m.Close()
				}
			}
		}
		if err != nil {
			s.close()
			return nil, fmt.Errorf("open map %s: %w", path, err)
		}
		s.maps[name] = m
	}
	return s, nil
}

// raise says that a list or a scope has changed.
func (s *sharedMaps) raise() error {
	var n uint64
	if err := s.maps["epoch"].Lookup(uint32(0), &n); err != nil {
		return fmt.Errorf("read the epoch: %w", err)
	}
	if err := s.maps["epoch"].Put(uint32(0), n+1); err != nil {
		return fmt.Errorf("raise the epoch: %w", err)
	}
	return nil
}

// clear empties a slot.
func (s *sharedMaps) clear(slot uint32) error {
	errs := []error{s.maps["scopes"].Put(slot, bpf.SensorScope{})}
	for _, outer := range []string{"lists", "prefixes"} {
		if err := s.maps[outer].Delete(slot); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(append(errs, s.raise())...); err != nil {
		return fmt.Errorf("clear slot %d: %w", slot, err)
	}
	return nil
}

// usePins opens the directory for an observer: it stays while that is held.
func usePins(name string) (*pinDir, *sharedMaps, error) {
	root, lock, err := lockRoot(true)
	if err != nil {
		return nil, nil, err
	}
	defer lock.Close()
	d := &pinDir{name: name, path: filepath.Join(root, name)}
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make the directory of pins: %w", err)
	}
	shared, err := openShared(d.path, true)
	if err != nil {
		return nil, nil, err
	}
	if d.held, err = lockDir(d.path, unix.LOCK_SH); err == nil {
		err = shared.clearForgotten(d.path)
	}
	if err != nil {
		shared.close()
		if d.held != nil {
			d.held.Close()
		}
		return nil, nil, err
	}
	return d, shared, nil
}

// clearForgotten empties the slots of policies whose pins are gone: an observer
// would take sockets for attempts on which nothing acts any more.
func (s *sharedMaps) clearForgotten(dir string) error {
	for i := range uint32(maxPolicies) {
		var scope bpf.SensorScope
		if err := s.maps["scopes"].Lookup(i, &scope); err != nil {
			return fmt.Errorf("read the policies in force: %w", err)
		}
		if scope.Mode == uint32(bpf.SensorModeMODE_NONE) {
			continue
		}
		if _, err := os.Stat(slotDir(dir, i)); errors.Is(err, fs.ErrNotExist) {
			if err := s.clear(i); err != nil {
				return err
			}
		}
	}
	return nil
}

// release lets go of the directory and removes it if nothing else needs it.
func (d *pinDir) release() error {
	if d.held != nil {
		d.held.Close()
		d.held = nil
	}
	return sweep(d.name)
}

// sweep removes the shared maps of a directory that no observer uses and no
// policy is pinned in, then the directories, and a bpffs of our own that is
// empty.
func sweep(name string) error {
	root, lock, err := lockRoot(false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := sweepDir(filepath.Join(root, name)); err != nil {
		lock.Close()
		return err
	}
	// Another database's directory keeps it.
	left, err := os.ReadDir(root)
	if err == nil && len(left) == 0 {
		err = os.Remove(root)
	}
	lock.Close()
	if err == nil && len(left) == 0 && root == ownDir {
		err = unmountOwn()
	}
	if err != nil {
		return fmt.Errorf("tidy up %s: %w", root, err)
	}
	return nil
}

func sweepDir(dir string) error {
	mine, err := lockDir(dir, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EWOULDBLOCK) {
		return nil
	}
	if err != nil {
		return err
	}
	defer mine.Close()
	left, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read pins: %w", err)
	}
	for _, e := range left {
		if e.IsDir() {
			return nil
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove pins: %w", err)
	}
	return nil
}
