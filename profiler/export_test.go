package profiler

import "time"

// Hurry has a session narrow its policy as soon as there is a reason to.
func (o *Options) Hurry() { o.pace = pace{least: time.Millisecond, most: time.Millisecond} }

// Bounds of narrowing.
const (
	MaxNarrowed = maxNarrowed
	PollEvery   = pollEvery
	CanaryEvery = canaryEvery
)
