package schedule

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// calendar is a time of systemd.time(7), as systemd writes it after reading it:
// [WEEKDAYS ]YEAR-MONTH-DAY HOUR:MINUTE:SECOND[ ZONE].
type calendar struct {
	weekdays              []time.Weekday // none is every one
	year, month, day      chain
	fromEnd               bool // the day is counted from the end of the month
	hour, minute, seconds chain
	wall                  *time.Location
}

// chain is the values that a part of a time may have; nil is any.
type chain []values

// values are one of a chain: from a first to a last one, which is -1 for none,
// in steps; a step of 0 means the first one alone.
type values struct{ first, last, step int }

func (c chain) has(n int) bool {
	return c == nil || slices.ContainsFunc(c, func(v values) bool {
		switch {
		case v.step == 0:
			return n == v.first
		case n < v.first || v.last >= 0 && n > v.last:
			return false
		}
		return (n-v.first)%v.step == 0
	})
}

// parseCalendar reports false for what it cannot read.
func parseCalendar(text string, wall *time.Location) (*calendar, bool) {
	c := &calendar{wall: wall}
	words := strings.Fields(text)
	if len(words) > 0 && !strings.ContainsAny(words[0][:1], "*0123456789") {
		if c.weekdays = parseWeekdays(words[0]); c.weekdays == nil {
			return nil, false
		}
		words = words[1:]
	}
	if len(words) == 3 {
		zone, err := time.LoadLocation(words[2])
		if err != nil {
			return nil, false
		}
		c.wall, words = zone, words[:2]
	}
	if len(words) != 2 {
		return nil, false
	}
	date := words[0]
	if i := strings.LastIndexByte(date, '~'); i >= 0 {
		c.fromEnd, date = true, date[:i]+"-"+date[i+1:]
	}
	ok := parseParts(date, "-", &c.year, &c.month, &c.day) && parseParts(words[1], ":", &c.hour, &c.minute, &c.seconds)
	ranged := slices.ContainsFunc(c.day, func(v values) bool { return v.last >= 0 })
	return c, ok && !(c.fromEnd && ranged)
}

func parseParts(text, separator string, into ...*chain) bool {
	parts := strings.Split(text, separator)
	if len(parts) != len(into) {
		return false
	}
	for i, part := range parts {
		if part == "*" {
			continue
		}
		for _, one := range strings.Split(part, ",") {
			v, ok := parseValues(one)
			if !ok {
				return false
			}
			*into[i] = append(*into[i], v)
		}
	}
	return true
}

// parseValues reads N, N..M, N/STEP or N..M/STEP.
func parseValues(text string) (v values, ok bool) {
	text, step, stepped := strings.Cut(text, "/")
	first, last, ranged := strings.Cut(text, "..")
	v.last = -1
	number := func(text string, into *int) bool {
		n, err := strconv.ParseUint(text, 10, 16)
		*into = int(n)
		return err == nil
	}
	if ok = number(first, &v.first); ranged {
		v.step, ok = 1, ok && number(last, &v.last)
	}
	if stepped {
		ok = ok && number(step, &v.step) && v.step > 0
	}
	return v, ok
}

func parseWeekdays(text string) []time.Weekday {
	names := []string{"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"}
	var days []time.Weekday
	for _, part := range strings.Split(text, ",") {
		first, last, ranged := strings.Cut(part, "..")
		if !ranged {
			last = first
		}
		from, to := slices.Index(names, first), slices.Index(names, last)
		if from < 0 || to < from {
			return nil
		}
		for day := from; day <= to; day++ {
			days = append(days, time.Weekday((day+1)%7))
		}
	}
	return days
}

// daysAhead bounds how far next looks: a 29 February is at most eight years away.
const daysAhead = 8*366 + 1

// next returns the first time of the calendar after another, zero if there is
// none in the years to come.
func (c *calendar) next(after time.Time) time.Time {
	after = after.In(c.wall)
	year, month, day := after.Date()
	for n := range daysAhead {
		if date := time.Date(year, month, day+n, 0, 0, 0, 0, c.wall); c.hasDay(date) {
			if at := c.within(date, after); !at.IsZero() {
				return at
			}
		}
	}
	return time.Time{}
}

func (c *calendar) hasDay(date time.Time) bool {
	year, month, day := date.Date()
	if len(c.weekdays) > 0 && !slices.Contains(c.weekdays, date.Weekday()) || !c.year.has(year) || !c.month.has(int(month)) {
		return false
	}
	if !c.fromEnd {
		return c.day.has(day)
	}
	days := slices.Clone(c.day)
	last := time.Date(year, month+1, 0, 0, 0, 0, 0, time.UTC).Day()
	for i := range days {
		days[i].first = last - days[i].first + 1
	}
	return days.has(day)
}

// within returns the first time after another on one day, zero if there is none.
func (c *calendar) within(date, after time.Time) time.Time {
	year, month, day := date.Date()
	for hour := range 24 {
		if !c.hour.has(hour) || !time.Date(year, month, day, hour, 59, 59, 0, c.wall).After(after) {
			continue
		}
		for minute := range 60 {
			if !c.minute.has(minute) {
				continue
			}
			for second := range 60 {
				if !c.seconds.has(second) {
					continue
				}
				if at := time.Date(year, month, day, hour, minute, second, 0, c.wall); at.After(after) {
					return at
				}
			}
		}
	}
	return time.Time{}
}
