// Package enforcer turns evidence into verdicts, verdicts into a plan that a
// person reviews, and a plan into the enforcing TracingPolicy that an agent
// holds: loaded, proven to act, counted and taken off.
//
// What must not be in it: how evidence is gathered (package profiler), how it
// is kept (package store), how an agent works inside (internal/sensor), and
// printing, prompts and exit codes (cmd/profile).
package enforcer
