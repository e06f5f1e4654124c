package schedule

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"time"
)

// askWithin bounds how long systemd is waited for.
const askWithin = 10 * time.Second

func timers(ctx context.Context) ([]Job, error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	out, err := exec.CommandContext(ctx, "systemctl", "list-timers", "--output=json", "--no-pager").Output()
	if err != nil {
		return nil, fmt.Errorf("ask systemd for its timers: %w", err)
	}
	return parseTimers(out)
}

// parseTimers reads what systemctl prints: times are microseconds since 1970,
// null or 0 for never.
func parseTimers(text []byte) ([]Job, error) {
	var rows []struct {
		Next, Last *int64
		Unit       string
	}
	if err := json.Unmarshal(text, &rows); err != nil {
		return nil, fmt.Errorf("read the timers of systemd: %w", err)
	}
	at := func(usec *int64) time.Time {
		if usec == nil || *usec <= 0 {
			return time.Time{}
		}
		return time.UnixMicro(*usec)
	}
	var jobs []Job
	for _, row := range rows {
		jobs = append(jobs, Job{Name: row.Unit, Next: at(row.Next), last: at(row.Last)})
	}
	return jobs, nil
}
