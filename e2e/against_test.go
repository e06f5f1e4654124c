package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"profile/internal/tetragon"
)

// The scripts run against the embedded sensor, and where PROFILE_E2E_AGENT has
// the address of an agent, against that. What an agent has no word for is left
// out by name, here and nowhere else.

// noCgroup and the others are why scripts are left out.
const (
	noCgroup  = "it confines to cgroups, for which a Tetragon has no word"
	noCommand = "it says learn -- COMMAND, which needs a cgroup of its own"
	noPins    = "it breaks the sensor's own pins and programs"
	noRing    = "it makes the ring of the embedded sensor small"
	noKills   = "it compares kills by executable that nobody listened to, and a Tetragon counts all together"
	noBytes   = "it learns a name that is not UTF-8, which a Tetragon does not tell"
	noHeld    = "it is of sockets that are open before learning, or of what is sent and received, of which a Tetragon is not asked"
	noAgent   = "it brings agents of its own, or needs none"
	noBurst   = "it starts thousands of programs at once and wants each counted: a Tetragon loses some, which is a gap"
	noSensor  = "it takes away what the embedded sensor needs of the machine"
)

var notOfTetragon = map[string]string{
	"armed-cgroup":                  noCgroup,
	"armed-together":                noCgroup,
	"attempts-lapsed":               noCgroup,
	"attempts-outside-are-evidence": noCgroup,
	"coverage-cgroup":               noCgroup,
	"coverage-include":              noCgroup,
	"coverage-narrower":             noCgroup,
	"coverage-agent":                noAgent,
	"hard-cgroup":                   noCgroup,
	"hard-clone":                    noCgroup,
	"learn-anew":                    noCgroup,
	"runs-moved":                    noCgroup,
	"defend-change":                 noCommand,
	"hard-command":                  noCommand,
	"hard-jobs":                     noCommand,
	"hard-killed":                   noCommand,
	"armed-detached":                noPins,
	"armed-old-stays":               noPins,
	"armed-status":                  noPins,
	"release-leaves-nothing":        noPins,
	"loss-gap":                      noRing,
	"counts-many":                   noBurst,
	"attempts-monitor":              noKills,
	"hard-databases":                noKills,
	"naming-unenforceable":          noBytes,
	"defend-handed":                 noHeld,
	"defend-reach":                  noHeld,
	"runs-before":                   noHeld,
	"hard-pidns":                    "it forks into a pid namespace without an exec, of which a Tetragon does not tell",
	"naming-mounts":                 "it has another file at the same path in a mount namespace, and a Tetragon does not tell which was executed",
	"bad-agent":                     noAgent,
	"hard-badagent":                 noAgent,
	"hard-badinput":                 noAgent,
	"hard-daemon":                   noAgent,
	"hard-terminal":                 noAgent,
	"bad-place":                     noSensor,
	"hard-mounts":                   noSensor,
	"hard-moved":                    noPins,
}

var notOfAgents = map[string]string{
	"armed-detached":         noPins,
	"armed-old-stays":        noPins,
	"armed-status":           noPins,
	"loss-gap":               noRing,
	"release-leaves-nothing": noPins,
	"bad-agent":              noAgent,
	"coverage-agent":         noAgent,
	"bad-place":              noSensor,
	"hard-mounts":            noSensor,
	"hard-moved":             noPins,
	"hard-badagent":          noAgent,
	"hard-badinput":          noAgent,
	"hard-daemon":            noAgent,
	"hard-terminal":          noAgent,
	"hard-jobs":              noCommand,
	"hard-killed":            noCommand,
	"hard-command":           noCommand,
	"defend-change":          noCommand,
}

// opponent is the agent that the scripts run against; nil is the embedded one.
type opponent struct {
	address  string
	tetragon bool
}

var against = sync.OnceValues(func() (*opponent, error) {
	address := os.Getenv("PROFILE_E2E_AGENT")
	if address == "" {
		return nil, nil
	}
	var agent *tetragon.Agent
	err := fmt.Errorf("agent %s does not answer", address)
	for deadline := time.Now().Add(2 * time.Minute); agent == nil && time.Now().Before(deadline); time.Sleep(time.Second) {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		agent, err = tetragon.Dial(ctx, address, nil)
		cancel()
	}
	if err != nil {
		return nil, err
	}
	defer agent.Close()
	o := &opponent{address: address, tetragon: !agent.IsSensor()}
	fmt.Fprintf(os.Stderr, "e2e: against the agent at %s: %s %s\n", address, agent.Name, agent.Version)
	if o.tetragon && os.Getenv("PROFILE_E2E_WHOLE_MACHINE") == "" {
		return nil, fmt.Errorf("a %s enforces on the whole machine, and one mistake kills the shell you work through: run this in a virtual machine, or set PROFILE_E2E_WHOLE_MACHINE=yes", agent.Name)
	}
	return o, nil
})

// ask does something with the agent.
func (o *opponent) ask(do func(context.Context, *tetragon.Agent) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	agent, err := tetragon.Dial(ctx, o.address, nil)
	if err != nil {
		return err
	}
	return errors.Join(do(ctx, agent), agent.Close())
}

// policies are the names of those that the agent has.
func (o *opponent) policies(t *testing.T) (names []string) {
	t.Helper()
	err := o.ask(func(ctx context.Context, agent *tetragon.Agent) error {
		all, err := agent.Policies(ctx, "")
		for _, st := range all {
			names = append(names, st.GetName())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// forget deletes the one policy of the agent's whose name begins so, behind the
// back of who loaded it.
func (o *opponent) forget(prefix string) error {
	return o.ask(func(ctx context.Context, agent *tetragon.Agent) error {
		loaded, err := agent.Policies(ctx, prefix)
		if err != nil {
			return err
		}
		if len(loaded) != 1 {
			return fmt.Errorf("%d policies are loaded, want 1", len(loaded))
		}
		return agent.Delete(ctx, loaded[0].GetName())
	})
}

// how a script confines itself, and what it is where that is the machine.
var (
	ofPlans   = regexp.MustCompile(`'--cgroup '\$CG('|\s)`)
	ofLearn   = regexp.MustCompile(`(?m)^((?:\[.*\] )?(?:learn|policy)) --cgroup \$CG\b([^/])`)
	ofLearner = regexp.MustCompile(`(profile --db \S+ learn) --cgroup \$CG\b([^/])`)
	ofEnforce = regexp.MustCompile(`(profile --db \S+ enforce) --cgroup \$CG\b([^/\n].*|\n)`)
	ofAgent   = regexp.MustCompile(`(profile --db \S+ (?:learn|enforce))\b(.*)`)
)

// rewrite makes a script one for an agent. A Tetragon learns on the whole
// machine, and enforces on it what lies in the script's own directory.
func (o *opponent) rewrite(text string) string {
	if o.tetragon {
		text = ofPlans.ReplaceAllStringFunc(text, func(m string) string {
			if m[len(m)-1] == '\'' {
				return "'"
			}
			return m[len(m)-1:]
		})
		text = ofLearn.ReplaceAllString(text, "$1$2")
		text = ofLearner.ReplaceAllString(text, "$1$2")
		text = ofEnforce.ReplaceAllStringFunc(text, func(m string) string {
			only := " --only=$$WORK/**"
			if strings.Contains(m, " --only ") {
				only = ""
			}
			return ofEnforce.ReplaceAllString(m, "$1"+only+"$2")
		})
	}
	return ofAgent.ReplaceAllStringFunc(text, func(m string) string {
		if strings.Contains(m, " --from ") {
			return m // what was recorded is read without an agent
		}
		return ofAgent.ReplaceAllString(m, "$1 --agent=$$AGENTADDRESS$2")
	})
}

// scripts are the files to run, rewritten into a directory, and the names of
// those that are left out, with the reason.
func (o *opponent) scripts(t *testing.T) []string {
	files, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	without := notOfAgents
	if o.tetragon {
		without = notOfTetragon
	}
	dir := t.TempDir()
	left := maps.Clone(without)
	var all []string
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txtar")
		if _, out := without[name]; out {
			delete(left, name)
			continue
		}
		text, err := os.ReadFile(file)
		if err == nil {
			file = filepath.Join(dir, filepath.Base(file))
			err = os.WriteFile(file, []byte(o.rewrite(string(text))), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, file)
	}
	if len(left) > 0 {
		t.Fatalf("left out, and there are no such scripts: %q", slices.Sorted(maps.Keys(left)))
	}
	for _, name := range slices.Sorted(maps.Keys(without)) {
		fmt.Fprintf(os.Stderr, "e2e: left out: %s: %s\n", name, without[name])
	}
	return all
}

func TestScriptsAreRewrittenForATetragon(t *testing.T) {
	o := &opponent{tetragon: true}
	for script, want := range map[string]string{
		"learn --cgroup $CG\nin ./tool":                                "learn\nin ./tool",
		"learn --cgroup $CG --for 2s\n":                                "learn --for 2s\n",
		"learn --cgroup $CG/in\n":                                      "learn --cgroup $CG/in\n",
		"env PLANFLAGS='--cgroup '$CG\nplan":                           "env PLANFLAGS=\nplan",
		"env PLANFLAGS='--cgroup '$CG' --include tool'\n":              "env PLANFLAGS=' --include tool'\n",
		"exec profile --db $DB enforce --cgroup $CG --yes\n":           "exec profile --db $DB enforce --agent=$AGENTADDRESS --only=$WORK/** --yes\n",
		"exit 1 profile --db $DB learn --cgroup $CG --for 1s\n":        "exit 1 profile --db $DB learn --agent=$AGENTADDRESS --for 1s\n",
		"exec profile --db $DB enforce --cgroup $CG --only /x --yes\n": "exec profile --db $DB enforce --agent=$AGENTADDRESS --only /x --yes\n",
		"exec profile --db $DB status\n":                               "exec profile --db $DB status\n",
		"exec profile --db $DB learn --from a.jsonl\n":                 "exec profile --db $DB learn --from a.jsonl\n",
	} {
		if got := o.rewrite(script); got != want {
			t.Errorf("%q becomes %q, want %q", script, got, want)
		}
	}
}
