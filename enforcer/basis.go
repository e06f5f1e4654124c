package enforcer

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"profile/store"
)

// reasons is every reason for a verdict, whatever its kind, and its notes.
func (c *considered) reasons(v Verdict, rows []store.Evidence) []string {
	reasons := make([]string, 0, 1+len(v.Reasons)+len(v.Notes))
	if basis := c.basis(v, rows); basis != "" {
		reasons = append(reasons, basis)
	}
	return append(append(reasons, v.Reasons...), v.Notes...)
}

// basis says what a verdict of network or quiet rests on, "" for
// unproven.
func (c *considered) basis(v Verdict, rows []store.Evidence) string {
	switch v.Kind {
	case Network:
		return tellNetwork(v.Network, v.AtLeast)
	case Quiet:
		var awake time.Duration
		sessions := 0
		for i := range rows {
			if s, ok := c.sessions[rows[i].Session]; ok && s.proves() && isOf(&rows[i], v.Files) {
				sessions++
				awake += s.Awake
			}
		}
		ran := count(v.Complete, "complete run")
		if v.Complete < c.t.MinRuns {
			ran += ", and one still going that was watched from its start for at least " + tellDuration(c.t.MinWatch)
		}
		return "opened no network socket in " + ran + " under " + count(uint64(len(v.Entries)), "name") +
			", in " + count(uint64(sessions), "session") + " that watched for " + tellDuration(awake) + " awake"
	}
	return ""
}

// isOf reports whether a row tells of one of the files, or of a file that is
// not known.
func isOf(row *store.Evidence, files []store.FileID) bool {
	for i := range row.Files {
		if file := row.Files[i].File; !file.Known() || slices.Contains(files, file) {
			return true
		}
	}
	return false
}

// tellNetwork tells each use, with its runs, or the least that they were, and
// its times.
func tellNetwork(uses []store.Use, atLeast bool) string {
	var told []string
	for _, u := range uses {
		one := u.Family + " " + u.Type + " in "
		if atLeast {
			one += "at least "
		}
		one += count(u.Runs, "run")
		if first, last := tellTime(u.First), tellTime(u.Last); first == last {
			one += " at " + first
		} else {
			one += " from " + first + " to " + last
		}
		told = append(told, one)
	}
	return strings.Join(told, "; ")
}

// reaches are the ways in which sockets are used, as formats and as plain words
// have them.
var reaches = []struct {
	reach      store.Reach
	name, what string
}{
	{store.ReachLoopback, "loopback", "stayed on this machine"},
	{store.ReachListen, "listen", "listened"},
	{store.ReachOut, "out", "went out"},
	{store.ReachPeer, "peer", "exchanged data with another machine"},
}

// tellReach tells what sockets were used for, as far as that is known.
func tellReach(u store.Use) string {
	var told []string
	for _, one := range reaches {
		if u.Reach&one.reach != 0 {
			told = append(told, one.what)
		}
	}
	text := strings.Join(told, " and ")
	if len(u.Destinations) > 0 {
		to := "to "
		if u.Reach&store.ReachPeer != 0 {
			to = "" // the other side may have begun
		}
		text += " (" + to + strings.Join(u.Destinations, ", ") + ")"
	}
	if u.Inherited > 0 {
		if text != "" {
			text += "; "
		}
		text += count(u.Inherited, "run") + " used a socket that it had not opened"
	}
	return text
}

// count gives a number with its noun, "no" for none.
func count(n uint64, noun string) string {
	switch n {
	case 0:
		return "no " + noun
	case 1:
		return "1 " + noun
	}
	return strconv.FormatUint(n, 10) + " " + noun + "s"
}

func tellTime(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// tellDuration gives a duration as a person reads it: 3d4h, 2h5m, 40s.
func tellDuration(d time.Duration) string {
	if d > 0 && d < time.Second {
		return "less than 1s"
	}
	d = d.Round(time.Second)
	days, d := d/(24*time.Hour), d%(24*time.Hour)
	hours, minutes, seconds := d/time.Hour, d%time.Hour/time.Minute, d%time.Minute/time.Second
	text := make([]byte, 0, 16)
	add := func(n time.Duration, unit byte) {
		if n > 0 {
			text = append(strconv.AppendInt(text, int64(n), 10), unit)
		}
	}
	add(days, 'd')
	add(hours, 'h')
	if days == 0 {
		add(minutes, 'm')
	}
	if days == 0 && hours == 0 {
		add(seconds, 's')
	}
	if len(text) == 0 {
		return "0s"
	}
	return string(text)
}
