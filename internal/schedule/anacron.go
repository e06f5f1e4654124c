package schedule

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// anacronJobs reads the jobs that anacron runs once in so many days, see
// anacrontab(5), and when it did so last: it keeps that day in a file, which it
// writes when the job has ended.
func anacronJobs(root string, now time.Time) ([]Job, error) {
	file := filepath.Join(root, "etc/anacrontab")
	text, err := readTable(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var jobs []Job
	for _, job := range parseAnacron(file, text) {
		if err := job.readLast(filepath.Join(root, "var/spool/anacron", job.id), now.Location()); err != nil {
			return jobs, fmt.Errorf("read when %s was run: %w", job.Name, err)
		}
		// One that is overdue, or was never run, is when anacron is started next.
		if job.Next = now; !job.last.IsZero() {
			year, month, day := job.last.Date()
			if due := job.period(time.Date(year, month, day, 0, 0, 0, 0, now.Location())); due.After(now) {
				job.Next = due
			}
		}
		jobs = append(jobs, job.Job)
	}
	return jobs, nil
}

type anacronJob struct {
	Job
	id     string
	period func(time.Time) time.Time // the day on which it is due again
}

func parseAnacron(file, text string) []anacronJob {
	var jobs []anacronJob
	n := 0
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", " \x00")) {
		n++
		at := n
		n += strings.Count(line, "\x00") // lines that were continued
		words := strings.Fields(strings.ReplaceAll(line, "\x00", ""))
		if len(words) < 4 || strings.Contains(words[0], "=") || strings.ContainsRune(words[2], '/') {
			continue // a comment, a variable, or no job
		}
		period := parsePeriod(words[0])
		if period == nil {
			continue
		}
		jobs = append(jobs, anacronJob{Job{Name: fmt.Sprintf("%s:%d (%s)", file, at, strings.Join(words[3:], " "))}, words[2], period})
	}
	return jobs
}

// parsePeriod gives nil for what is none.
func parsePeriod(word string) func(time.Time) time.Time {
	years, months, days := 0, 0, 0
	switch word {
	case "@daily":
		days = 1
	case "@weekly":
		days = 7
	case "@monthly":
		months = 1
	case "@yearly", "@annually":
		years = 1
	default:
		n, err := strconv.ParseUint(word, 10, 16)
		if err != nil || n == 0 {
			return nil
		}
		days = int(n)
	}
	return func(t time.Time) time.Time { return t.AddDate(years, months, days) }
}

// readLast reads the day on which the job was run last, if it ever was. The hour
// is that at which the file was written, if that was on the same day.
func (j *anacronJob) readLast(file string, wall *time.Location) error {
	info, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	text, err := readTable(file)
	if err != nil {
		return err
	}
	day, err := time.ParseInLocation("20060102", strings.TrimSpace(text), wall)
	if err != nil {
		return nil // anacron takes it for never
	}
	j.last, j.within = day, day.AddDate(0, 0, 1).Sub(day)
	if written := info.ModTime().In(wall); written.Format("20060102") == day.Format("20060102") {
		j.last, j.within = written, 0
	}
	return nil
}
