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
		// Of a large report this is the most of the text: it is put together once.
		text := append(make([]byte, 0, 256), "opened no network socket in "...)
		text = appendCount(text, v.Complete, "complete run")
		if v.Complete < c.t.MinRuns {
			text = append(text, ", and one still going that was watched from its start for at least "...)
			text = appendDuration(text, c.t.MinWatch)
		}
		text = appendCount(append(text, " under "...), uint64(len(v.Entries)), "name")
		text = appendCount(append(text, ", in "...), uint64(sessions), "session")
		text = appendDuration(append(text, " that watched for "...), awake)
		return string(append(text, " awake"...))
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
func tellReach(u store.Use, atLeast bool) string {
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
	if text != "" && atLeast {
		text += ", as far as the agent was asked"
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
func count(n uint64, noun string) string { return string(appendCount(nil, n, noun)) }

func appendCount(text []byte, n uint64, noun string) []byte {
	switch n {
	case 0:
		return append(append(text, "no "...), noun...)
	case 1:
		return append(append(text, "1 "...), noun...)
	}
	text = append(strconv.AppendUint(text, n, 10), ' ')
	return append(append(text, noun...), 's')
}

func tellTime(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// tellDuration gives a duration as a person reads it: 3d4h, 2h5m, 40s.
func tellDuration(d time.Duration) string { return string(appendDuration(nil, d)) }

func appendDuration(text []byte, d time.Duration) []byte {
	if d > 0 && d < time.Second {
		return append(text, "less than 1s"...)
	}
	d = d.Round(time.Second)
	days, d := d/(24*time.Hour), d%(24*time.Hour)
	hours, minutes, seconds := d/time.Hour, d%time.Hour/time.Minute, d%time.Minute/time.Second
	before := len(text)
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
	if len(text) == before {
		return append(text, "0s"...)
	}
	return text
}
