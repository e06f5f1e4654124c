package schedule

import (
	"fmt"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// parseTable reads the lines of a crontab, see crontab(5). What is run as the
// machine starts has no time, and is left out.
func parseTable(file, text string, user bool, now time.Time) []Job {
	var jobs []Job
	n := 0
	wall := now.Location()
	for line := range strings.Lines(text) {
		n++
		words := strings.Fields(line)
		if name, zone, ok := strings.Cut(strings.TrimSpace(line), "="); ok && strings.TrimSpace(name) == "CRON_TZ" {
			if there, err := time.LoadLocation(strings.Trim(strings.TrimSpace(zone), `"'`)); err == nil {
				wall = there // of the lines below it
			}
			continue
		}
		if len(words) == 0 || !strings.ContainsAny(words[0][:1], "*0123456789@") {
			continue // a comment, or a variable
		}
		times := 5
		if strings.HasPrefix(words[0], "@") {
			times = 1
		}
		first := times
		if user {
			first++
		}
		if len(words) <= first || words[0] == "@reboot" {
			continue
		}
		job := Job{Name: fmt.Sprintf("%s:%d (%s)", file, n, strings.Join(words[first:], " "))}
		job.next = parseTimes(words[:times], wall)
		if job.next != nil {
			job.Next = job.next(now)
		}
		jobs = append(jobs, job)
	}
	return jobs
}

// parseTimes gives nil for what cannot be read. A crontab is about the clock on
// the wall.
func parseTimes(fields []string, wall *time.Location) func(time.Time) time.Time {
	if len(fields) == 5 {
		fields = append([]string{}, fields...)
		if !strings.Contains(fields[4], "/") {
			fields[4] = sundays.Replace(fields[4])
		}
	}
	schedule, err := cron.ParseStandard(strings.Join(fields, " "))
	if err != nil {
		return nil
	}
	return func(after time.Time) time.Time { return schedule.Next(after.In(wall)) }
}

// sundays writes Sunday as the library has it, which is 0 alone. Every day is
// not written as a star, beside which the day of the month counts alone.
var sundays = strings.NewReplacer("0-7", "0-6", "1-7", "0-6", "2-7", "2-6,0", "3-7", "3-6,0", "4-7", "4-6,0", "5-7", "5-6,0", "6-7", "6,0", "7", "0")
