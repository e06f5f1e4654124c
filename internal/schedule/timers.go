package schedule

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// askWithin bounds how long systemd is waited for.
const askWithin = 10 * time.Second

// timers asks systemd for the timers that are active, and how they are set.
func timers(ctx context.Context, now time.Time) ([]Job, error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	out, err := exec.CommandContext(ctx, "systemctl", "list-timers", "--output=json", "--no-pager").Output()
	if err != nil {
		return nil, fmt.Errorf("ask systemd for its timers: %w", err)
	}
	jobs, err := parseTimers(out)
	if err != nil || len(jobs) == 0 {
		return nil, err
	}
	args := []string{"show", "--no-pager", "--property=Id,TimersCalendar,TimersMonotonic,RandomizedDelayUSec,AccuracyUSec", "--"}
	for _, job := range jobs {
		args = append(args, job.Name)
	}
	if out, err = exec.CommandContext(ctx, "systemctl", args...).Output(); err != nil {
		return jobs, fmt.Errorf("ask systemd how its timers are set: %w", err)
	}
	setTimers(jobs, string(out), now.Location())
	return jobs, nil
}

// parseTimers reads what systemctl prints: times are microseconds since 1970,
// null or 0 for never. A timer that never ran and is not going to is left out.
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
		if job := (Job{Name: row.Unit, Next: at(row.Next), last: at(row.Last)}); !job.Next.IsZero() || !job.last.IsZero() {
			jobs = append(jobs, job)
		}
	}
	return jobs, nil
}

// setTimers adds to timers when they are run, from what systemctl shows of
// them: systemd itself says no more than when each was run last.
func setTimers(jobs []Job, shown string, wall *time.Location) {
	byName := map[string]*Job{}
	for i := range jobs {
		byName[jobs[i].Name] = &jobs[i]
	}
	for block := range strings.SplitSeq(shown, "\n\n") {
		var id string
		var set Job
		for line := range strings.Lines(block) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			switch name {
			case "Id":
				id = value
			case "TimersCalendar", "TimersMonotonic":
				set.setTimer(value, wall)
			case "RandomizedDelayUSec", "AccuracyUSec":
				set.late += parseSpan(value)
			}
		}
		if job := byName[id]; job != nil {
			job.calendars, job.every, job.late = set.calendars, set.every, set.late
		}
	}
}

// setTimer reads one setting, such as { OnCalendar=*-*-* 06:00:00 ; next_elapse=... }.
func (j *Job) setTimer(value string, wall *time.Location) {
	setting, _, _ := strings.Cut(strings.TrimPrefix(value, "{ "), " ; ")
	name, value, _ := strings.Cut(setting, "=")
	switch name {
	case "OnCalendar":
		if c, ok := parseCalendar(value, wall); ok {
			j.calendars = append(j.calendars, c)
		}
	case "OnUnitActiveUSec":
		j.repeats(parseSpan(value))
	case "OnUnitInactiveUSec":
		j.repeats(2 * parseSpan(value)) // and what it takes to run, which is not known
	}
}

func (j *Job) repeats(every time.Duration) {
	if every > 0 && (j.every == 0 || every < j.every) {
		j.every = every
	}
}

// units are those of systemd.time(7), as systemd writes them.
var units = map[string]time.Duration{
	"us": time.Microsecond, "ms": time.Millisecond, "s": time.Second, "min": time.Minute, "h": time.Hour,
	"d": 24 * time.Hour, "w": 7 * 24 * time.Hour, "month": 2629800 * time.Second, "y": 31557600 * time.Second,
}

// parseSpan reads a span of time such as 1h 40min; 0 for what is none.
func parseSpan(text string) time.Duration {
	var span time.Duration
	for word := range strings.FieldsSeq(text) {
		digits := strings.TrimRight(word, "abcdefghijklmnopqrstuvwxyz")
		n, err := strconv.ParseFloat(digits, 64)
		unit := units[word[len(digits):]]
		if err != nil || unit == 0 {
			return 0
		}
		span += time.Duration(n * float64(unit))
	}
	return span
}
