package enforcer

import (
	"fmt"
	"time"

	"profile/internal/schedule"
)

// enough is how long a plan is to have been learned for: what a machine does
// each day was seen then.
const enough = 24 * time.Hour

// warnOfLearned says how far what was learned falls short, where a plan rests
// on it: of a day, and of jobs that were not run meanwhile.
func (p *planner) warnOfLearned() {
	if !p.learned {
		return
	}
	rests := p.covering.only(func(s *session) bool { return s.proves() })
	var awake time.Duration
	for _, id := range rests.ids {
		awake += rests.sessions[id].Awake
	}
	if awake < enough {
		p.warn("it was learned for %s awake, which is less than a day: what runs once a day may not have been seen", tellDuration(awake))
	}
	var missed []string
	for _, job := range p.o.Jobs {
		if !rests.saw(job) {
			next := "at a time that cannot be told"
			if !job.Next.IsZero() {
				next = "next at " + tellTime(job.Next)
			}
			name, _ := printable(job.Name)
			missed = append(missed, fmt.Sprintf("%s (%s)", name, next))
		}
	}
	if len(missed) > 0 {
		p.warn("timers and jobs of this machine that are not known to have run while it was learned, so that what they start may not have been seen:")
	}
	for _, job := range missed {
		p.warn("  %s", job)
	}
}

// saw reports whether a job was to be run in time that the sessions watched.
func (c *considered) saw(job schedule.Job) bool {
	for _, id := range c.ids {
		for _, w := range c.sessions[id].Windows {
			if job.RanBetween(w.From, w.To) {
				return true
			}
		}
	}
	return false
}
