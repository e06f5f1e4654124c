// Package schedule tells what this machine runs by itself at certain times:
// timers of systemd, and jobs of cron and anacron.
//
// What must not be in it: what was learned, and what follows from it.
package schedule

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Job is something that is run at certain times.
type Job struct {
	Name string    // of the timer, or the file and line of the table with its command
	Next time.Time // when it is run next, the day of it for anacron; zero if that cannot be told

	// last is when it was run last, zero if it never was, or the begin of the time
	// within which it was; next gives the time of the run after a time.
	last   time.Time
	within time.Duration
	next   func(time.Time) time.Time

	// Of a timer, besides its last: its times, after how long it is run again, and
	// how much later either may be.
	calendars []*calendar
	every     time.Duration
	late      time.Duration
}

// RanBetween reports whether the job was run, or was to be run, from one time
// to another. Of what was set otherwise since, or by something else than the
// time, that is not known.
func (j Job) RanBetween(from, to time.Time) bool {
	if j.next != nil {
		at := j.next(from.Add(-time.Second))
		return !at.IsZero() && !at.After(to)
	}
	if !j.last.Before(from) && !j.last.Add(j.within).After(to) {
		return true
	}
	if j.every > 0 && to.Sub(from) >= j.every+j.late {
		return true
	}
	return slices.ContainsFunc(j.calendars, func(c *calendar) bool {
		at := c.next(from.Add(-time.Second))
		return !at.IsZero() && !at.Add(j.late).After(to)
	})
}

// Jobs returns the jobs of the machine whose files are below root, which is "/"
// for this one, sorted by name. Timers of systemd are asked for where it is PID
// 1 of this one. What cannot be read is named in the error; the jobs beside it
// are given all the same.
func Jobs(ctx context.Context, root string, now time.Time) ([]Job, error) {
	jobs, err := cronJobs(root, now)
	days, aerr := anacronJobs(root, now)
	if jobs = append(jobs, days...); err == nil {
		err = aerr
	}
	if _, booted := os.Stat("/run/systemd/system"); root == "/" && booted == nil { // as sd_booted(3) has it
		timers, terr := timers(ctx, now)
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
	_, err := os.Stat(filepath.Join(root, "etc/debian_version"))
	debian := err == nil
	for pattern, user := range map[string]bool{
		"etc/cron.d/*": true, "var/spool/cron/crontabs/*": false, "var/spool/cron/tabs/*": false, "var/spool/cron/*": false} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			if !user || !passedOver(filepath.Base(file), debian) {
				tables = append(tables, table{file, user})
			}
		}
	}
	var jobs []Job
	var failed error
	for _, t := range tables {
		text, err := readTable(t.file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			failed = fmt.Errorf("read crontab: %w", err)
			continue
		}
		jobs = append(jobs, parseTable(t.file, text, t.user, now)...)
	}
	return jobs, failed
}

// passedOver reports whether cron does not read a file of that name: those that
// editors and package managers leave there, and Debian's none with a dot.
func passedOver(name string, debian bool) bool {
	if strings.HasPrefix(name, ".") || strings.ContainsAny(name, "~#") || debian && strings.Contains(name, ".") {
		return true
	}
	return slices.ContainsFunc([]string{".rpmsave", ".rpmorig", ".rpmnew", ".swp", ".cfsaved"}, func(end string) bool { return strings.HasSuffix(name, end) })
}

// readTable reads a file that is regular and not too large; any other is as
// good as not there.
func readTable(file string) (string, error) {
	info, err := os.Stat(file)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() || info.Size() > maxTable {
		return "", fs.ErrNotExist
	}
	text, err := os.ReadFile(file)
	return string(text), err
}

// maxTable bounds how large a crontab is read.
const maxTable = 1 << 20
