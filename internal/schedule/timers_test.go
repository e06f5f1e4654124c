package schedule

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// As systemd 252 of a Debian 12 has them.
const (
	listed = `[{"next":1795891620000000,"left":1795891620000000,"last":1795891560234664,"passed":0,"unit":"minutely.timer","activates":"minutely.service"},
		{"next":1795893486000000,"left":0,"last":1795891686000000,"passed":0,"unit":"half-hourly.timer","activates":"half-hourly.service"},
		{"next":1795922020228105,"left":0,"last":0,"passed":0,"unit":"daily.timer","activates":"daily.service"},
		{"next":1796002689295293,"left":0,"last":0,"passed":0,"unit":"fstrim.timer","activates":"fstrim.service"},
		{"next":null,"left":null,"last":1795891560000000,"passed":0,"unit":"boot.timer","activates":"boot.service"},
		{"next":null,"left":null,"last":0,"passed":0,"unit":"past.timer","activates":"past.service"}]`
	shown = `TimersCalendar={ OnCalendar=*-*-* *:*:00 ; next_elapse=Sat 2026-11-28 18:47:00 UTC }
AccuracyUSec=1s
RandomizedDelayUSec=0
Id=minutely.timer

TimersMonotonic={ OnUnitActiveUSec=30min ; next_elapse=0 }
TimersMonotonic={ OnActiveUSec=2min ; next_elapse=2min 4.527729s }
AccuracyUSec=1min
RandomizedDelayUSec=0
Id=half-hourly.timer

TimersCalendar={ OnCalendar=*-*-* 03:10:00 ; next_elapse=Sun 2026-11-29 03:10:00 UTC }
AccuracyUSec=1min
RandomizedDelayUSec=30min
Id=daily.timer

TimersCalendar={ OnCalendar=Mon *-*-* 00:00:00 ; next_elapse=Mon 2026-11-30 00:00:00 UTC }
AccuracyUSec=1h
RandomizedDelayUSec=1h 40min
Id=fstrim.timer

TimersMonotonic={ OnBootUSec=1min 30s ; next_elapse=1min 30s }
AccuracyUSec=1min
RandomizedDelayUSec=0
Id=boot.timer
`
)

// What was learned days ago, and what ran then, is told by how a timer is set:
// of its runs systemd knows the last alone.
func TestTimersOfSystemd(t *testing.T) {
	jobs, err := parseTimers([]byte(listed))
	if err != nil {
		t.Fatal(err)
	}
	setTimers(jobs, shown, time.UTC)
	day := func(day, hour, minute int) time.Time { return time.Date(2026, 11, day, hour, minute, 0, 0, time.UTC) }
	ran := map[string][]bool{}
	for _, job := range jobs {
		for _, span := range [][2]time.Time{
			{day(23, 0, 0), day(24, 4, 0)},   // a Monday and more
			{day(24, 3, 0), day(24, 3, 40)},  // too short for the delay
			{day(24, 3, 10), day(24, 3, 42)}, // just long enough
			{day(24, 3, 11), day(24, 3, 11)},
			{day(28, 18, 45), day(28, 18, 49)}, // the last runs
		} {
			ran[job.Name] = append(ran[job.Name], job.RanBetween(span[0], span[1]))
		}
	}
	want := map[string][]bool{
		"minutely.timer":    {true, true, true, false, true},
		"half-hourly.timer": {true, true, true, false, true},
		"daily.timer":       {true, false, true, false, false},
		"fstrim.timer":      {true, false, false, false, false},
		"boot.timer":        {false, false, false, false, true},
		// past.timer never ran and is not going to.
	}
	if diff := cmp.Diff(want, ran); diff != "" {
		t.Errorf("ran (-want +got):\n%s", diff)
	}
	if at := jobs[0].Next; !at.Equal(time.Unix(1795891620, 0)) || !jobs[4].Next.IsZero() {
		t.Errorf("next at %v, and %v after the boot", at, jobs[4].Next)
	}
	if _, err := parseTimers([]byte("NEXT LEFT")); err == nil {
		t.Error("no error for what is no JSON")
	}
}

func TestATimerThatFollowsItselfRunsAgain(t *testing.T) {
	jobs := []Job{{Name: "a.timer"}, {Name: "b.timer"}}
	setTimers(jobs, "Id=a.timer\nTimersMonotonic={ OnUnitInactiveUSec=1h ; next_elapse=0 }\nTimersMonotonic={ OnUnitActiveUSec=1d ; next_elapse=0 }\nAccuracyUSec=1min\n\n"+
		"Id=other.timer\nTimersMonotonic={ OnUnitActiveUSec=1s ; next_elapse=0 }\n", time.UTC)
	for i, want := range [][]bool{{false, true}, {false, false}} {
		for n, minutes := range []time.Duration{120, 121} {
			if got := jobs[i].RanBetween(now, now.Add(minutes*time.Minute)); got != want[n] {
				t.Errorf("%s ran within %d minutes: %v", jobs[i].Name, minutes, got)
			}
		}
	}
}

func TestCalendars(t *testing.T) {
	after := time.Date(2026, 11, 28, 18, 52, 30, 0, time.UTC) // a Saturday
	for text, want := range map[string]string{                // as systemd-analyze calendar has it, "" for what cannot be read
		"*-*-* *:*:00":                           "Sat 2026-11-28 18:53:00 UTC",
		"*-*-* *:*:31":                           "Sat 2026-11-28 18:52:31 UTC",
		"*-*-* 18:52:30":                         "Sun 2026-11-29 18:52:30 UTC",
		"*-*-* 06,18:00:00":                      "Sun 2026-11-29 06:00:00 UTC",
		"*-*-* 07..23:30:00":                     "Sat 2026-11-28 19:30:00 UTC",
		"Mon..Fri *-*-* 10:00:00":                "Mon 2026-11-30 10:00:00 UTC",
		"Sun *-*-* 03:10:00":                     "Sun 2026-11-29 03:10:00 UTC",
		"Tue,Thu..Fri *-*-* 00:00:00":            "Tue 2026-12-01 00:00:00 UTC",
		"*-*-01 00:00:00":                        "Tue 2026-12-01 00:00:00 UTC",
		"*-01,04,07,10-01 00:00:00":              "Fri 2027-01-01 00:00:00 UTC",
		"*-01-01 00:00:00":                       "Fri 2027-01-01 00:00:00 UTC",
		"*-02-29 00:00:00":                       "Tue 2028-02-29 00:00:00 UTC",
		"*-*~01 00:00:00":                        "Mon 2026-11-30 00:00:00 UTC",
		"Mon *-*~07/1 00:00:00":                  "Mon 2026-11-30 00:00:00 UTC",
		"*-*~02,01 12:00:00":                     "Sun 2026-11-29 12:00:00 UTC",
		"*-02~01..03 12:00:00":                   "",
		"*-*-* 00/2:00:00":                       "Sat 2026-11-28 20:00:00 UTC",
		"*-*-* *:00/15:00":                       "Sat 2026-11-28 19:00:00 UTC",
		"*-*-* 08..18/2:05,35:00":                "Sun 2026-11-29 08:05:00 UTC",
		"*-*-* 09:00:00 America/New_York":        "Sun 2026-11-29 14:00:00 UTC",
		"*-*-* 09:00:00 UTC":                     "Sun 2026-11-29 09:00:00 UTC",
		"2020-01-01 00:00:00":                    "never",
		"*-*-* 09:00:00 Nowhere/Land":            "",
		"*-*-* 09:00":                            "",
		"*-* 09:00:00":                           "",
		"Mo *-*-* 09:00:00":                      "",
		"*-*-* 09:00:0x":                         "",
		"*-*-* 00/0:00:00":                       "",
		"*-*-* 00:00:00.500000":                  "",
		"":                                       "",
		"Sat *-*-* 00:00:00 Etc/UTC and so on":   "",
		"Wed..Mon *-*-* 09:00:00":                "",
		"*-*-* 1..2..3:00:00":                    "",
		"*-*-* 99999999999999999999999999:00:00": "",
	} {
		c, ok := parseCalendar(text, time.UTC)
		if ok != (want != "") {
			t.Errorf("%q can be read: %v", text, ok)
		}
		if !ok {
			continue
		}
		got := "never"
		if at := c.next(after); !at.IsZero() {
			got = at.UTC().Format("Mon 2006-01-02 15:04:05 MST")
		}
		if got != want {
			t.Errorf("%q is next at %s, want %s", text, got, want)
		}
	}
}
