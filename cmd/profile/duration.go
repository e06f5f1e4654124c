package main

import (
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"
)

// duration is a flag's value: as Go writes one, with d and w besides, which
// the flag library does not know.
type duration struct{ d time.Duration }

var longUnits = regexp.MustCompile(`^(?:(\d+(?:\.\d+)?)w)?(?:(\d+(?:\.\d+)?)d)?(.*)$`)

// Set implements cli.Generic.
func (v *duration) Set(text string) error {
	m := longUnits.FindStringSubmatch(text)
	if m == nil || text == "" {
		return fmt.Errorf("%q is no duration such as 30m, 1d or 1w2d", text)
	}
	var total time.Duration
	for i, unit := range []time.Duration{7 * 24 * time.Hour, 24 * time.Hour} {
		if m[i+1] == "" {
			continue
		}
		n, err := strconv.ParseFloat(m[i+1], 64)
		if err != nil || n > 1e4 {
			return fmt.Errorf("%q is no duration such as 30m, 1d or 1w2d", text)
		}
		total += time.Duration(n * float64(unit))
	}
	if m[3] != "" {
		d, err := time.ParseDuration(m[3])
		if err != nil {
			return fmt.Errorf("%q is no duration such as 30m, 1d or 1w2d", text)
		}
		total += d
	}
	if total < 0 {
		return fmt.Errorf("%q is before it begins", text)
	}
	v.d = total
	return nil
}

// String implements cli.Generic.
func (v *duration) String() string {
	if v.d == 0 {
		return ""
	}
	return v.d.String()
}

func durationFlag(name, usage string, value time.Duration) cli.Flag {
	return &cli.GenericFlag{Name: name, Usage: usage, Value: &duration{value}}
}

func getDuration(c *cli.Context, name string) time.Duration {
	return c.Generic(name).(*duration).d
}

// moment reads a point in time: RFC 3339, a date with or without a time of
// day, local, or a duration before now.
func moment(text string) (time.Time, error) {
	for _, form := range []string{time.RFC3339, time.DateTime, "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(form, text, time.Local); err == nil {
			return t, nil
		}
	}
	var ago duration
	if ago.Set(text) == nil {
		return time.Now().Add(-ago.d), nil
	}
	return time.Time{}, usagef("%q is no time such as 2026-01-31, 2026-01-31T08:00:00Z or 2d (ago)", text)
}

// aboutSeconds is a duration for a person, to the second.
func aboutSeconds(d time.Duration) string {
	if d > 0 && d < time.Second {
		return "less than 1s"
	}
	return d.Round(time.Second).String()
}
