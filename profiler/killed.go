package profiler

import (
	"context"
	"fmt"
	"log/slog"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"profile/internal/tetragon"
	"profile/store"
)

// Abandoned gives the addresses of agents that may have audit policies loaded
// still of sessions that were killed: the embedded sensor's go by themselves.
// The caller holds the lock on the database, as for ClearKilled.
func Abandoned(ctx context.Context, s *store.Store) ([]string, error) {
	var addresses []string
	err := s.View(ctx, func(tx *store.Tx) error {
		sessions, err := tx.Sessions()
		for _, one := range sessions {
			if one.Ended.IsZero() && one.Agent != tetragon.Embedded && !slices.Contains(addresses, one.Agent) {
				addresses = append(addresses, one.Agent)
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look for killed sessions: %w", err)
	}
	return addresses, nil
}

// ClearKilled ends the sessions that were killed: the lock on the database, which
// the caller holds, proves that none of its sessions lives. What they left
// loaded is deleted, and nothing of another database.
func ClearKilled(ctx context.Context, agent *tetragon.Agent, s *store.Store, log *slog.Logger) error {
	var sessions []store.Session
	err := s.View(ctx, func(tx *store.Tx) (err error) {
		sessions, err = tx.Sessions()
		return err
	})
	if err != nil {
		return fmt.Errorf("look for killed sessions: %w", err)
	}
	loaded, err := agent.Policies(ctx, tetragon.LearnPrefix)
	if err != nil {
		return err
	}
	var killed []store.Session
	for _, one := range sessions {
		if one.Ended.IsZero() {
			killed = append(killed, one)
		}
	}
	for _, st := range loaded {
		if !slices.ContainsFunc(sessions, func(one store.Session) bool { return isOf(st.GetName(), PolicyName(one.ID)) }) {
			continue
		}
		log.Info("deleting the audit policy of a session that was killed", "policy", st.GetName())
		err := agent.Delete(ctx, st.GetName())
		if status.Code(err) == codes.FailedPrecondition {
			log.Info("it is another database's, from which the session was brought in", "policy", st.GetName())
		} else if err != nil {
			return err
		}
	}
	if len(killed) == 0 {
		return nil
	}
	boot, err := bootID()
	if err != nil {
		return err
	}
	err = s.Update(ctx, func(tx *store.Tx) error {
		for _, one := range killed {
			one.End, one.Ended = store.EndKilled, one.Started
			if one.BootID != "" && one.BootID != boot {
				one.End = store.EndReboot
			}
			if n := len(one.Windows); n > 0 {
				one.Ended = one.Windows[n-1].To
			}
			if err := tx.PutSession(&one); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("end the sessions that were killed: %w", err)
	}
	return nil
}
