package schedule

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.Local) // a Sunday

func TestJobsOfCrontabs(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"etc/crontab": "SHELL=/bin/sh\n# a comment\n17 *\t* * *   root  cd / && run-parts /etc/cron.hourly\n" +
			"47 6 * * 7 root weekly\n@reboot root once\nnot a job\n61 * * * * root never\n5 4 * *\n",
		"etc/cron.d/tool":              "30 3 * * 1-5 nobody /usr/bin/tool --all\n",
		"etc/cron.d/tool.dpkg-old":     "30 3 * * * nobody /usr/bin/old\n",
		"var/spool/cron/crontabs/anna": "@daily /home/anna/backup\n",
		"etc/cron.daily/script":        "#!/bin/sh\n",
		"etc/cron.d/.placeholder":      "* * * * * root x\n",
	} {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	jobs, err := Jobs(context.Background(), root, now)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, j := range jobs {
		next := "unknown"
		if !j.Next.IsZero() {
			next = j.Next.Format("Mon 2006-01-02 15:04")
		}
		got[strings.TrimPrefix(j.Name, root)] = next
	}
	want := map[string]string{
		"/etc/crontab:3 (cd / && run-parts /etc/cron.hourly)": "Sun 2026-03-01 12:17",
		"/etc/crontab:4 (weekly)":                             "Sun 2026-03-08 06:47",
		"/etc/crontab:7 (never)":                              "unknown",
		"/etc/cron.d/tool:1 (/usr/bin/tool --all)":            "Mon 2026-03-02 03:30",
		"/var/spool/cron/crontabs/anna:1 (/home/anna/backup)": "Mon 2026-03-02 00:00",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("jobs (-want +got):\n%s", diff)
	}
}

func TestTimersOfSystemd(t *testing.T) {
	text := `[{"next":1772409600000000,"left":1,"last":1772323200000000,"passed":2,"unit":"apt-daily.timer","activates":"apt-daily.service"},
		{"next":null,"left":null,"last":0,"passed":0,"unit":"new.timer","activates":"new.service"}]`
	jobs, err := parseTimers([]byte(text))
	if err != nil || len(jobs) != 2 {
		t.Fatalf("%d jobs, %v", len(jobs), err)
	}
	last := time.Unix(1772323200, 0)
	if !jobs[0].Next.Equal(time.Unix(1772409600, 0)) || !jobs[0].RanBetween(last, last.Add(time.Hour)) || jobs[0].RanBetween(last.Add(1), last.Add(time.Hour)) {
		t.Errorf("%+v", jobs[0])
	}
	if !jobs[1].Next.IsZero() || jobs[1].RanBetween(last, last.Add(time.Hour)) {
		t.Errorf("%+v", jobs[1])
	}
	if _, err := parseTimers([]byte("NEXT LEFT")); err == nil {
		t.Error("no error for what is no JSON")
	}
}

func TestRanBetween(t *testing.T) {
	hour := func(h float64) time.Time { return now.Add(time.Duration(h * float64(time.Hour))) }
	for _, c := range []struct {
		times    string
		from, to float64
		want     bool
	}{
		{"0 13 * * *", 0, 2, true}, {"0 13 * * *", 0, 1, true}, {"0 13 * * *", 1, 2, true}, {"0 13 * * *", 1.1, 20, false},
		{"0 13 * * *", 2, 26, true}, {"0 13 1 * *", 2, 200, false}, {"61 * * * *", 0, 1000, false},
	} {
		jobs := parseTable("t", c.times+" x\n", false, now)
		if got := jobs[0].RanBetween(hour(c.from).UTC(), hour(c.to).UTC()); got != c.want {
			t.Errorf("%s from %v to %v hours: %v, want %v", c.times, c.from, c.to, got, c.want)
		}
	}
}
