// Package schedule tells what this machine runs by itself at certain times:
// timers of systemd and jobs of cron.
//
// What must not be in it: what was learned, and what follows from it.
package schedule

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Job is something that is run at certain times.
type Job struct {
	Name string    // of the timer, or the file and line of the crontab with its command
	Next time.Time // when it is run next; zero if that cannot be told

	// last is when it was run last, zero if it never was; next gives the time of
	// the run after a time. A job has one or the other.
	last time.Time
	next func(time.Time) time.Time
}

// RanBetween reports whether the job was run, or was to be run, from one time
// to another.
func (j Job) RanBetween(from, to time.Time) bool {
	if j.next != nil {
		at := j.next(from.Add(-time.Second))
		return !at.IsZero() && !at.After(to)
	}
	return !j.last.Before(from) && !j.last.After(to)
}

// Jobs returns the jobs of the machine whose files are below root, which is "/"
// for this one, sorted by name. Timers of systemd are asked for where it is PID
// 1 of this one. What cannot be read is named in the error; the jobs beside it
// are given all the same.
func Jobs(ctx context.Context, root string, now time.Time) ([]Job, error) {
	jobs, err := cronJobs(root, now)
	if _, booted := os.Stat("/run/systemd/system"); root == "/" && booted == nil { // as sd_booted(3) has it
		timers, terr := timers(ctx)
		jobs = append(jobs, timers...)
		if err == nil {
			err = terr
		}
	}
	slices.SortFunc(jobs, func(a, b Job) int { return strings.Compare(a.Name, b.Name) })
	return jobs, err
}

// cronJobs reads the crontabs of the system and of users.
func cronJobs(root string, now time.Time) ([]Job, error) {
	type table struct {
		file string
		user bool // its lines name a user
	}
	tables := []table{{filepath.Join(root, "etc/crontab"), true}}
	for pattern, user := range map[string]bool{"etc/cron.d/*": true, "var/spool/cron/crontabs/*": false, "var/spool/cron/*": false} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			// Cron passes over the files that package managers leave there.
			if !user || !strings.ContainsAny(filepath.Base(file), ".~") {
				tables = append(tables, table{file, user})
			}
		}
	}
	var jobs []Job
	var failed error
	for _, t := range tables {
		info, err := os.Stat(t.file)
		if err != nil || !info.Mode().IsRegular() || info.Size() > maxTable {
			continue
		}
		text, err := os.ReadFile(t.file)
		if err != nil {
			failed = fmt.Errorf("read crontab: %w", err)
			continue
		}
		jobs = append(jobs, parseTable(t.file, string(text), t.user, now)...)
	}
	return jobs, failed
}

// maxTable bounds how large a crontab is read.
const maxTable = 1 << 20
