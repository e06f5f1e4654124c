package enforcer

import (
	"fmt"
	"math"
	"os"
	"strings"

	"github.com/prometheus/procfs"

	"profile/store"
)

// processes answers which processes of evidence still live on this machine.
// The zero value reads /proc when it is first asked.
type processes struct {
	read   bool
	bootID string
	proc   procfs.FS
	err    error
}

// startNotSeen says that a process of the executable lives whose start was not
// seen, as the latest of its rows has them: what it did before is not known.
func (p *processes) startNotSeen(c *considered, rows []store.Evidence) string {
	row := rows[len(rows)-1]
	boot := c.known[row.Session].BootID
	if boot == "" {
		return "" // of another host, or a recording
	}
	for _, tally := range row.Files {
		if len(tally.Unseen) == 0 {
			continue
		}
		if !p.read {
			p.open()
		}
		if p.err != nil {
			return fmt.Sprintf("whether a process whose start was not seen is alive cannot be said: %v", p.err)
		}
		if boot != p.bootID {
			return ""
		}
		for _, one := range tally.Unseen {
			if p.lives(one) {
				return fmt.Sprintf("a process whose start was not seen is alive: %d", one.PID)
			}
		}
		if len(tally.Unseen) >= store.MaxUnseen {
			return "more processes whose start was not seen than were kept: learn again once they have ended"
		}
	}
	return ""
}

func (p *processes) open() {
	p.read = true
	if p.bootID, p.err = bootID(); p.err == nil {
		p.proc, p.err = procfs.NewDefaultFS()
	}
}

// bootID tells this boot of the machine from all others.
func bootID() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id)), err
}

// lives reports whether the process with that PID is still the same one. Its
// start is compared to the second: the clock may have been set since.
func (p *processes) lives(one store.Process) bool {
	proc, err := p.proc.Proc(int(one.PID))
	if err != nil {
		return false
	}
	stat, err := proc.Stat()
	if err != nil || stat.State == "Z" || stat.State == "X" {
		return false
	}
	start, err := stat.StartTime()
	if err != nil {
		return true // it has ended meanwhile, or cannot be told: hold
	}
	return math.Abs(start-float64(one.Start.UnixNano())/1e9) <= 1
}
