package enforcer

import (
	"context"
	"fmt"
	"strings"

	"profile/internal/tetragon"
	"profile/store"
)

// Orphaned lists, by name, what an agent has in force for the database of a
// path. It is to be asked where there is no database any more.
func Orphaned(ctx context.Context, a *tetragon.Agent, path string) ([]string, error) {
	policies, err := a.Policies(ctx, prefixFor(path))
	var names []string
	for _, st := range policies {
		names = append(names, st.GetName())
	}
	return names, err
}

// MovedError says that a generation was loaded while its database lay at another
// path, or is that of another database which this one was copied from. Its
// policies and pins are named after that path: from here they are not found.
type MovedError struct{ Generation uint64 }

func (e *MovedError) Error() string {
	return fmt.Sprintf("generation %d was loaded while this database lay at another path, or for one that this is a copy of, and may act from there still", e.Generation)
}

// CheckMoved gives a *MovedError if that is so of the generation, which may be
// nil.
func CheckMoved(s *store.Store, g *store.Generation) error {
	if g == nil || len(g.Policies) == 0 || strings.HasPrefix(g.Policies[0], policyPrefix(s)) {
		return nil
	}
	return &MovedError{Generation: g.N}
}
