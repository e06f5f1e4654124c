package sensor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/cilium/ebpf"

	"profile/internal/cgroup"
	"profile/internal/sensor/bpf"
)

// checkEvery is how often an observer looks whether what it takes for listed
// still is.
const checkEvery = time.Second

// lapses looks after the enforcing policies beside an audit policy. One whose
// hooks were taken away behind its back acts no more, and a socket of what it
// lists is no attempt then but evidence. It is not safe for concurrent use.
type lapses struct {
	dir    string
	shared *sharedMaps
	off    *ebpf.Variable // bits of the slots that do not act
	mask   uint32
	good   time.Time // when everything that is not in the mask was found to act
}

// check says which policies were found to act before and do not, and since when
// that can be so. What it finds is in force for observers when it returns.
func (l *lapses) check() (why string, since time.Time, err error) {
	_, lock, err := lockRoot(false)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // every pin is gone: the slots tell
	} else if err == nil {
		defer lock.Close()
	}
	if err != nil {
		return "", l.good, err
	}
	now := time.Now()
	var mask uint32
	var lapsed []string
	for i := range uint32(maxPolicies) {
		name, fault, err := l.ask(i)
		if err != nil {
			return "", l.good, err
		}
		if fault == nil {
			continue
		}
		if mask |= 1 << i; l.mask&(1<<i) == 0 {
			lapsed = append(lapsed, fmt.Sprintf("policy %s acts no more: %v", name, fault))
		}
	}
	since, l.good = l.good, now
	if mask == l.mask {
		return "", since, nil
	}
	l.mask = mask
	if err := errors.Join(l.off.Set(mask), l.shared.raise()); err != nil {
		return "", since, fmt.Errorf("leave out the policies that do not act: %w", err)
	}
	return strings.Join(lapsed, "; "), since, nil
}

// ask finds out about the policy of one slot. There is no fault where none is in
// force, nor with one whose cgroup was removed: nobody is in that.
func (l *lapses) ask(slot uint32) (name string, fault, err error) {
	var scope bpf.SensorScope
	if err := l.shared.maps["scopes"].Lookup(slot, &scope); err != nil {
		return "", nil, fmt.Errorf("read the policies in force: %w", err)
	}
	if scope.Mode == uint32(bpf.SensorModeMODE_NONE) {
		return "", nil, nil
	}
	e := &enforcement{slot: slot, dir: slotDir(l.dir, slot)}
	if _, err := os.Stat(e.dir); err != nil {
		return e.label(), err, nil
	}
	if fault = e.read(l.shared); fault == nil || scope.Level == 0 || e.Cgroup == "" {
		return e.label(), fault, nil
	}
	if group, err := cgroup.Find(e.Cgroup); errors.Is(err, fs.ErrNotExist) || err == nil && group.ID != scope.Cgroup {
		return "", nil, nil
	}
	return e.label(), fault, nil
}
