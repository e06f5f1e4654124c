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
	writeAll(t, root, map[string]string{
		"etc/crontab": "SHELL=/bin/sh\n# a comment\n17 *\t* * *   root  cd / && run-parts /etc/cron.hourly\n" +
			"47 6 * * 7 root weekly\n@reboot root once\nnot a job\n61 * * * * root never\n5 4 * *\n",
		"etc/cron.d/tool":              "30 3 * * 1-5 nobody /usr/bin/tool --all\n",
		"etc/cron.d/tool.dpkg-old":     "30 3 * * * nobody /usr/bin/old\n",
		"var/spool/cron/crontabs/anna": "@daily /home/anna/backup\n",
		"etc/cron.daily/script":        "#!/bin/sh\n",
		"etc/cron.d/.placeholder":      "* * * * * root x\n",
		"etc/debian_version":           "12.1\n",
	})
	want := map[string]string{
		"/etc/crontab:3 (cd / && run-parts /etc/cron.hourly)": "Sun 2026-03-01 12:17",
		"/etc/crontab:4 (weekly)":                             "Sun 2026-03-08 06:47",
		"/etc/crontab:7 (never)":                              "unknown",
		"/etc/cron.d/tool:1 (/usr/bin/tool --all)":            "Mon 2026-03-02 03:30",
		"/var/spool/cron/crontabs/anna:1 (/home/anna/backup)": "Mon 2026-03-02 00:00",
	}
	if diff := cmp.Diff(want, nexts(t, root)); diff != "" {
		t.Errorf("jobs (-want +got):\n%s", diff)
	}
}

func writeAll(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// nexts gives the jobs below root with when they are run next.
func nexts(t *testing.T, root string) map[string]string {
	t.Helper()
	jobs, err := Jobs(context.Background(), root, now)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, j := range jobs {
		next := "unknown"
		if !j.Next.IsZero() {
			next = j.Next.In(now.Location()).Format("Mon 2006-01-02 15:04")
		}
		got[strings.TrimPrefix(j.Name, root)] = next
	}
	return got
}

// As Debian 12 has them.
const (
	debianCrontab = `# /etc/crontab: system-wide crontab
SHELL=/bin/sh
# You can also override PATH, but by default, newer versions inherit it from the environment
#PATH=/usr/local/sbin:/usr/local/bin:/sbin:/bin:/usr/sbin:/usr/bin

# .---------------- minute (0 - 59)
# |  .------------- hour (0 - 23)
# *  *  *  *  * user-name command to be executed
17 *	* * *	root	cd / && run-parts --report /etc/cron.hourly
25 6	* * *	root	test -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.daily; }
47 6	* * 7	root	test -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.weekly; }
52 6	1 * *	root	test -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.monthly; }
#
`
	debianAnacrontab = `# /etc/anacrontab: configuration file for anacron

SHELL=/bin/sh
HOME=/root
LOGNAME=root

# These replace cron's entries
1	5	cron.daily	run-parts --report /etc/cron.daily
7	10	cron.weekly	run-parts --report /etc/cron.weekly
@monthly	15	cron.monthly	run-parts --report /etc/cron.monthly
`
)

func TestJobsOfADebianWithAnacron(t *testing.T) {
	root := t.TempDir()
	writeAll(t, root, map[string]string{
		"etc/debian_version":             "12.1\n",
		"etc/crontab":                    debianCrontab,
		"etc/anacrontab":                 debianAnacrontab,
		"etc/cron.d/anacron":             "SHELL=/bin/sh\n\n30 7-23 * * *   root\t[ -x /etc/init.d/anacron ] && if [ ! -d /run/systemd/system ]; then /usr/sbin/invoke-rc.d anacron start >/dev/null; fi\n",
		"etc/cron.d/e2scrub_all":         "30 3 * * 0 root test -e /run/systemd/system || SERVICE_MODE=1 /usr/lib/x86_64-linux-gnu/e2fsprogs/e2scrub_all_cron\n",
		"etc/cron.d/php.dpkg-dist":       "9 9 * * * root php\n",
		"etc/cron.d/local.sh":            "9 9 * * * root local\n",
		"var/spool/anacron/cron.daily":   "20260301\n", // today
		"var/spool/anacron/cron.weekly":  "20260226\n",
		"var/spool/anacron/cron.monthly": "20260130\n",
	})
	want := map[string]string{
		"/etc/crontab:9 (cd / && run-parts --report /etc/cron.hourly)":                                                                                   "Sun 2026-03-01 12:17",
		"/etc/crontab:10 (test -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.daily; })":                                                 "Mon 2026-03-02 06:25",
		"/etc/crontab:11 (test -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.weekly; })":                                                "Sun 2026-03-08 06:47",
		"/etc/crontab:12 (test -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.monthly; })":                                               "Wed 2026-04-01 06:52",
		"/etc/anacrontab:8 (run-parts --report /etc/cron.daily)":                                                                                         "Mon 2026-03-02 00:00",
		"/etc/anacrontab:9 (run-parts --report /etc/cron.weekly)":                                                                                        "Thu 2026-03-05 00:00",
		"/etc/anacrontab:10 (run-parts --report /etc/cron.monthly)":                                                                                      "Mon 2026-03-02 00:00", // Go's 30 February
		"/etc/cron.d/anacron:3 ([ -x /etc/init.d/anacron ] && if [ ! -d /run/systemd/system ]; then /usr/sbin/invoke-rc.d anacron start >/dev/null; fi)": "Sun 2026-03-01 12:30",
		"/etc/cron.d/e2scrub_all:1 (test -e /run/systemd/system || SERVICE_MODE=1 /usr/lib/x86_64-linux-gnu/e2fsprogs/e2scrub_all_cron)":                 "Sun 2026-03-08 03:30",
	}
	if diff := cmp.Diff(want, nexts(t, root)); diff != "" {
		t.Errorf("jobs (-want +got):\n%s", diff)
	}
}

func TestJobsOfAFedora(t *testing.T) {
	root := t.TempDir()
	writeAll(t, root, map[string]string{
		"etc/cron.d/0hourly":    "# Run the hourly jobs\nSHELL=/bin/bash\nPATH=/sbin:/bin:/usr/sbin:/usr/bin\nMAILTO=root\n01 * * * * root run-parts /etc/cron.hourly\n",
		"etc/cron.d/raid-check": "# Run system wide raid-check once a week on Sunday at 1am by default\n0 1 * * Sun root /usr/sbin/raid-check\n",
		"etc/cron.d/my.job":     "CRON_TZ=Asia/Tokyo\n0 22 * * * root mine\n",
		"etc/cron.d/x.rpmsave":  "* * * * * root saved\n",
		"etc/anacrontab": "SHELL=/bin/sh\nPATH=/sbin:/bin\nMAILTO=root\n# the maximal random delay added to the base delay of the jobs\nRANDOM_DELAY=45\nSTART_HOURS_RANGE=3-22\n\n" +
			"#period in days   delay in minutes   job-identifier   command\n1\t5\tcron.daily\t\tnice run-parts /etc/cron.daily\n2 1 odd \\\n  /bin/odd\nx 1 bad /bin/bad\n3 1 ../../etc/shadow /bin/bad\n",
		"var/spool/anacron/cron.daily": "20260226\n", // overdue
		"var/spool/anacron/odd":        "nonsense",
		"var/spool/cron/root":          "*/10 * * * * backup\n0 4 * * 5-7/2 x\n",
	})
	want := map[string]string{
		"/etc/cron.d/0hourly:5 (run-parts /etc/cron.hourly)": "Sun 2026-03-01 12:01",
		"/etc/cron.d/raid-check:2 (/usr/sbin/raid-check)":    "Sun 2026-03-08 01:00",
		"/etc/cron.d/my.job:2 (mine)":                        "Sun 2026-03-01 13:00",
		"/etc/anacrontab:9 (nice run-parts /etc/cron.daily)": "Sun 2026-03-01 12:00",
		"/etc/anacrontab:10 (/bin/odd)":                      "Sun 2026-03-01 12:00",
		"/var/spool/cron/root:1 (backup)":                    "Sun 2026-03-01 12:10",
		"/var/spool/cron/root:2 (x)":                         "unknown",
	}
	if diff := cmp.Diff(want, nexts(t, root)); diff != "" {
		t.Errorf("jobs (-want +got):\n%s", diff)
	}
}

func TestAnacronRanOnTheDayOfItsFile(t *testing.T) {
	root := t.TempDir()
	writeAll(t, root, map[string]string{"etc/anacrontab": "1 5 daily x\n", "var/spool/anacron/daily": "20260228\n"})
	stamp := filepath.Join(root, "var/spool/anacron/daily")
	yesterday := func(hour int) time.Time { return time.Date(2026, 2, 28, hour, 0, 0, 0, time.Local) }
	ran := func(from, to int) bool {
		jobs, err := Jobs(context.Background(), root, now)
		if err != nil || len(jobs) != 1 {
			t.Fatal(jobs, err)
		}
		return jobs[0].RanBetween(yesterday(from), yesterday(to))
	}
	if err := os.Chtimes(stamp, time.Time{}, yesterday(7)); err != nil {
		t.Fatal(err)
	}
	if !ran(6, 8) || ran(8, 10) {
		t.Error("it was run at 7, by the time of its file")
	}
	// A file that was copied since tells the day alone.
	if err := os.Chtimes(stamp, time.Time{}, now); err != nil {
		t.Fatal(err)
	}
	if ran(0, 8) || ran(6, 30) || !ran(0, 24) {
		t.Error("it was run some time that day")
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
