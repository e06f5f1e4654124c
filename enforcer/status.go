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
	Schema     int    `json:"schema"`
	Stage      string `json:"stage"`      // StageNone, store.StageMonitor or store.StageEnforce
	Generation uint64 `json:"generation"` // 0 is none
	// Since is nil where none is in force.
	Since     *time.Time `json:"since"`
	Agent     string     `json:"agent"`
	Kills     []KillRow  `json:"kills"` // of every generation of the database, sorted by path
	WouldKill []KillRow  `json:"would_kill"`
	// Replaced are the listed whose files were replaced since they were
	// listed: they are acted on all the same.
	Replaced []string `json:"replaced_since,omitempty"`
	// Unjudged counts sockets of which the embedded sensor could not tell, for
	// want of memory, whose they are: they were opened.
	Unjudged uint64 `json:"unjudged,omitempty"`

	// Restarted says that an agent was seen to have been restarted, which does
	// not tell what it did between when it was last asked and then: the counts
	// are at least so many.
	Restarted bool `json:"-"`
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

// DriftError says that the agent does not hold what was recorded. Lost says that
// some of it does not act as it was loaded to.
type DriftError struct {
	What string
	Lost bool
}

func (e *DriftError) Error() string { return e.What }

// statusWithin is how long a command that changes what is in force is waited
// for.
const statusWithin = 10 * time.Second

// GetStatus asks the agent what is in force and records what it has counted.
// The agent may be nil if InForce is. If what the agent holds is not what was
// recorded, the error is a *DriftError, and the status is given beside it.
//
// A command that changes what is in force just now is waited for.
func GetStatus(ctx context.Context, a *tetragon.Agent, s *store.Store) (*Status, error) {
	deadline := time.Now().Add(statusWithin)
	for {
		changing := s.Changing() // what ends while it is looked at was seen half
		status, err := getStatus(ctx, a, s)
		var drift *DriftError
		if !errors.As(err, &drift) || !changing && !s.Changing() {
			return status, err
		}
		if time.Now().After(deadline) {
			return status, &DriftError{What: "another command is changing what is in force: ask again"}
		}
		select {
		case <-ctx.Done():
			return status, err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func getStatus(ctx context.Context, a *tetragon.Agent, s *store.Store) (*Status, error) {
	status := &Status{Schema: Schema, Stage: StageNone, Kills: []KillRow{}, WouldKill: []KillRow{}}
	g, err := InForce(ctx, s)
	if err != nil {
		return nil, err
	}
	var policies []*api.TracingPolicyStatus
	if a != nil {
		if policies, err = policiesOf(ctx, a, s); err != nil {
			return nil, err
		}
	}
	// The sensor of this process has nothing of what another agent has loaded.
	if g != nil && (a == nil || a.Address == tetragon.Embedded && g.Agent != a.Address && !listsAny(policies, g.Policies)) {
		return nil, fmt.Errorf("generation %d is with agent %s, which was not asked", g.N, g.Agent)
	}
	var uncounted error
	if a != nil {
		uncounted = CountKills(ctx, a, s)
	}
	if g != nil {
		since := g.Since.UTC()
		status.Recorded, status.Generation, status.Since, status.Agent = g, g.N, &since, g.Agent
	}
	if a != nil && g != nil && OnThisHost(a) {
		status.Replaced = replacedSinceListed(g)
	}
	if err := status.readKills(ctx, s); err != nil {
		return nil, err
	}
	if err = CheckMoved(s, g); err != nil {
		// What it was loaded to is the worst that it may do.
		status.Stage, err = g.Stage, &DriftError{What: err.Error() + "; " + mendMoved}
	} else {
		err = status.compare(g, policies, a == nil || a.Monitor)
		status.addInfo(a, g, policies)
	}
	if err == nil && g != nil {
		if differs := compareDir(s, *g); differs != nil {
			err = &DriftError{What: fmt.Sprintf("generation %d is in force, but the agent would not load it as it was when it is restarted: %v; %s", g.N, differs, mend)}
		}
	}
	return status, errors.Join(err, uncounted)
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
		status.Restarted = slices.ContainsFunc(all, func(g store.Generation) bool {
			return slices.ContainsFunc(g.Counters, func(c store.Counter) bool { return c.Anew })
		})
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

// mend is what to do about a drift.
const mend = "run enforce again, or release"

// mendMoved is what to do where a database was moved.
const mendMoved = "release it with --db and that path, at which no database need be"

// compare sets the stage by what the agent lists and says how that differs
// from what was recorded.
// An agent without modes enforces what it has.
func (status *Status) compare(g *store.Generation, listed []*api.TracingPolicyStatus, modes bool) error {
	recorded := ""
	if g != nil {
		recorded = fmt.Sprintf("generation %d is recorded as in force since %s, but", g.N, g.Since.Format(time.RFC3339))
		var same bool
		status.Stage, same = stageOf(*g, listed, modes)
		if why := missing(*g, listed); why != nil && g.State == store.StateLoaded {
			return &DriftError{fmt.Sprintf("%s agent %s %v; %s", recorded, g.Agent, why, mend), true}
		}
		switch {
		case !same:
			return &DriftError{fmt.Sprintf("generation %d was loaded to %s, but agent %s has its policies in several modes; %s", g.N, g.Stage, g.Agent, mend), true}
		case g.State == store.StateLoaded && status.Stage != g.Stage:
			return &DriftError{fmt.Sprintf("generation %d was loaded to %s, but agent %s has it in mode %s; %s", g.N, g.Stage, g.Agent, status.Stage, mend), true}
		case g.State == store.StateLoading:
			return &DriftError{What: fmt.Sprintf("a command was killed while it loaded generation %d, and whether that acts was never tried; %s", g.N, mend)}
		}
	}
	var drift error
	for _, st := range listed {
		if g != nil && slices.Contains(g.Policies, st.GetName()) {
			continue
		}
		status.Stage = worse(status.Stage, stageOfPolicy(st, modes))
		if drift == nil {
			drift = &DriftError{What: fmt.Sprintf("policy %s is loaded too, left by a command that was killed; %s", st.GetName(), mend)}
		}
	}
	return drift
}

// addInfo adds what the embedded sensor tells beside the list. What it cannot
// look into may do what it was loaded to, and of no generation that is recorded,
// the worst.
func (status *Status) addInfo(a *tetragon.Agent, g *store.Generation, listed []*api.TracingPolicyStatus) {
	for _, st := range listed {
		info, err := a.Info(st)
		if err != nil {
			continue // the kills, which were read before, have told of it
		}
		status.Unjudged += info.Errors
		if !info.Unseen {
			continue
		}
		stage := store.StageEnforce
		if g != nil && slices.Contains(g.Policies, st.GetName()) {
			stage = g.Stage
		}
		status.Stage = worse(status.Stage, stage)
	}
}

// worse is the one of two stages that does more to whom it lists.
func worse(a, b string) string {
	for _, stage := range []string{store.StageEnforce, store.StageMonitor} {
		if a == stage || b == stage {
			return stage
		}
	}
	return StageNone
}

// missing says what of a generation the agent does not list as enabled; nil if
// it lists all of it.
func missing(g store.Generation, listed []*api.TracingPolicyStatus) error {
	var gone []string
	for _, name := range g.Policies {
		st := policyNamed(listed, name)
		switch {
		case st == nil:
			gone = append(gone, name)
		case st.GetState() == api.TracingPolicyState_TP_STATE_LOADING:
			return fmt.Errorf("is still loading its policy %s, which is not enforced yet", name)
		case st.GetState() != api.TracingPolicyState_TP_STATE_ENABLED:
			return fmt.Errorf("lists its policy %s as %s: %s", name, st.GetState(), st.GetError())
		}
	}
	switch {
	case len(gone) == 0:
		return nil
	case len(gone) < len(g.Policies):
		return fmt.Errorf("lists only %d of its %d policies: %s is gone", len(g.Policies)-len(gone), len(g.Policies), gone[0])
	case len(listed) > 0:
		return fmt.Errorf("does not list it; it has policy %s, which may be what is left of it", listed[0].GetName())
	}
	return errors.New("does not list it: nothing of it is enforced")
}

func policyNamed(listed []*api.TracingPolicyStatus, name string) *api.TracingPolicyStatus {
	for _, st := range listed {
		if st.GetName() == name {
			return st
		}
	}
	return nil
}

// stageOf is the stage that the listed policies of a generation have, StageNone
// if none is listed. Where they differ it is what is worst for whom they list.
func stageOf(g store.Generation, listed []*api.TracingPolicyStatus, modes bool) (stage string, same bool) {
	stage = StageNone
	stages := map[string]bool{}
	for _, name := range g.Policies {
		if st := policyNamed(listed, name); st != nil {
			one := stageOfPolicy(st, modes)
			stage, stages[one] = worse(stage, one), true
		}
	}
	return stage, len(stages) <= 1
}

func stageOfPolicy(st *api.TracingPolicyStatus, modes bool) string {
	if st.GetState() != api.TracingPolicyState_TP_STATE_ENABLED {
		return StageNone
	}
	if !modes {
		return store.StageEnforce
	}
	switch st.GetMode() {
	case api.TracingPolicyMode_TP_MODE_ENFORCE:
		return store.StageEnforce
	case api.TracingPolicyMode_TP_MODE_MONITOR:
		return store.StageMonitor
	}
	return StageNone
}
