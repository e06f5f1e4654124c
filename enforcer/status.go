package enforcer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	api "github.com/cilium/tetragon/api/v1/tetragon"

	"profile/internal/tetragon"
	"profile/store"
)

// StageNone is the stage of a database of which nothing is in force.
const StageNone = "none"

// Status is what is in force for a database. Its JSON form is that of
// `status -o json`. Stage is what the agent says, not what was recorded.
type Status struct {
	Schema     int       `json:"schema"`
	Stage      string    `json:"stage"`      // StageNone, store.StageMonitor or store.StageEnforce
	Generation uint64    `json:"generation"` // 0 is none
	Since      time.Time `json:"since,omitzero"`
	Agent      string    `json:"agent"`
	Kills      []KillRow `json:"kills"` // of every generation of the database, sorted by path
	WouldKill  []KillRow `json:"would_kill"`
	// Replaced are the listed whose files were replaced since they were
	// listed: they are acted on all the same.
	Replaced []string `json:"replaced_since,omitempty"`

	// Recorded is the generation in force as it was recorded; nil if none is.
	Recorded *store.Generation `json:"-"`
}

// KillRow counts the kills of one executable. Path is "" where the agent
// cannot tell executables apart.
type KillRow struct {
	Path  string    `json:"path"`
	Count uint64    `json:"count"`
	Last  time.Time `json:"last,omitzero"`
}

// DriftError says that the agent does not hold what was recorded.
type DriftError struct{ What string }

func (e *DriftError) Error() string { return e.What }

// GetStatus asks the agent what is in force and records what it has counted.
// The agent may be nil if InForce is. If what the agent holds is not what was
// recorded, the error is a *DriftError, and the status is given beside it.
func GetStatus(ctx context.Context, a *tetragon.Agent, s *store.Store) (*Status, error) {
	status := &Status{Schema: Schema, Stage: StageNone, Kills: []KillRow{}, WouldKill: []KillRow{}}
	g, err := InForce(ctx, s)
	if err != nil {
		return nil, err
	}
	if g != nil && a == nil {
		return nil, fmt.Errorf("generation %d is with agent %s, which was not asked", g.N, g.Agent)
	}
	var policies []*api.TracingPolicyStatus
	var uncounted error
	if a != nil {
		if policies, err = policiesOf(ctx, a, s); err != nil {
			return nil, err
		}
		uncounted = CountKills(ctx, a, s)
	}
	if g != nil {
		status.Recorded, status.Generation, status.Since, status.Agent = g, g.N, g.Since.UTC(), g.Agent
	}
	if a != nil && g != nil && OnThisHost(a) {
		status.Replaced = replacedSinceListed(g)
	}
	if err := status.readKills(ctx, s); err != nil {
		return nil, err
	}
	return status, errors.Join(status.compare(g, policies), uncounted)
}

func replacedSinceListed(g *store.Generation) []string {
	return slices.DeleteFunc(slices.Clone(g.Paths), func(file string) bool {
		id := g.Files[file]
		return !id.Known() || replaced(file, []store.FileID{id}) != replacedSince
	})
}

func (status *Status) readKills(ctx context.Context, s *store.Store) error {
	return s.View(ctx, func(tx *store.Tx) error {
		all, err := tx.Generations()
		if err != nil {
			return err
		}
		sum := sumKills(all)
		for _, file := range slices.Sorted(maps.Keys(sum)) {
			if k := sum[file]; k.Kills > 0 {
				status.Kills = append(status.Kills, KillRow{file, k.Kills, k.LastKill.UTC()})
			}
			if k := sum[file]; k.Would > 0 {
				status.WouldKill = append(status.WouldKill, KillRow{file, k.Would, k.LastWould.UTC()})
			}
		}
		return nil
	})
}

// compare sets the stage by what the agent lists and says how that differs
// from what was recorded.
func (status *Status) compare(g *store.Generation, policies []*api.TracingPolicyStatus) error {
	const mend = "run enforce again, or release"
	var mine *api.TracingPolicyStatus
	for _, st := range policies {
		if g != nil && st.GetName() == g.Policy {
			mine = st
		}
	}
	if mine != nil {
		status.Stage = stageOf(mine)
	}
	switch {
	case g != nil && mine == nil && g.State == store.StateLoaded && len(policies) > 0:
		return &DriftError{fmt.Sprintf("generation %d is recorded as in force since %s, but agent %s does not list it; it has policy %s, which may be what is left of it; %s",
			g.N, g.Since.Format(time.RFC3339), g.Agent, policies[0].GetName(), mend)}
	case g != nil && mine == nil && g.State == store.StateLoaded:
		return &DriftError{fmt.Sprintf("generation %d is recorded as in force since %s, but agent %s does not list it: nothing of it is enforced; %s",
			g.N, g.Since.Format(time.RFC3339), g.Agent, mend)}
	case mine != nil && mine.GetState() != api.TracingPolicyState_TP_STATE_ENABLED:
		return &DriftError{fmt.Sprintf("generation %d is recorded as in force since %s, but agent %s lists it as %s: %s; %s",
			g.N, g.Since.Format(time.RFC3339), g.Agent, mine.GetState(), mine.GetError(), mend)}
	case mine != nil && status.Stage != g.Stage:
		return &DriftError{fmt.Sprintf("generation %d was loaded to %s, but agent %s has it in mode %s; %s", g.N, g.Stage, g.Agent, mine.GetMode(), mend)}
	case g != nil && g.State == store.StateLoading:
		return &DriftError{fmt.Sprintf("a command was killed while it loaded generation %d, and whether that acts was never tried; %s", g.N, mend)}
	}
	for _, st := range policies {
		if st != mine {
			return &DriftError{fmt.Sprintf("policy %s is loaded too, left by a command that was killed; %s", st.GetName(), mend)}
		}
	}
	return nil
}

func stageOf(st *api.TracingPolicyStatus) string {
	if st.GetState() != api.TracingPolicyState_TP_STATE_ENABLED {
		return StageNone
	}
	switch st.GetMode() {
	case api.TracingPolicyMode_TP_MODE_ENFORCE:
		return store.StageEnforce
	case api.TracingPolicyMode_TP_MODE_MONITOR:
		return store.StageMonitor
	}
	return StageNone
}
