package profiler

import (
	"errors"
	"fmt"
	"io/fs"

	"profile/internal/cgroup"
)

// errMoved is why learning goes on with a new policy: the kernel knows the
// cgroup by its id, and one that is removed and made anew, as a unit's is that
// is restarted, has another, so that nothing in it is seen.
var errMoved = errors.New("nothing of its cgroup is seen any more")

// lookAtGroup gives an errMoved where the cgroup is not the one that the audit
// policy was loaded for. Of an agent of another host it cannot be told.
func (l *learner) lookAtGroup() error {
	if l.bird == nil || l.Group.Level == 0 {
		return nil
	}
	now, err := cgroup.Find(l.Group.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %q was removed", errMoved, l.Group.Path)
	case err == nil && now.ID != l.Group.ID:
		return fmt.Errorf("%w: %q was made anew", errMoved, l.Group.Path)
	}
	return nil
}

// followGroup takes the cgroup that has the path now. If it is another one, what
// is loaded is not what the session needs.
func (l *learner) followGroup() error {
	if l.lookAtGroup() == nil {
		return nil
	}
	now, err := cgroup.Find(l.Group.Path)
	if err == nil {
		l.Group, l.whole = now, false
	}
	return err
}
