package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"profile/internal/cgroup"
	"profile/internal/sensor"
	"profile/internal/tetragon"
)

// Where a Tetragon of this machine says how to reach it, and where its
// packages put its socket.
const (
	tetragonInfo   = "/var/run/tetragon/tetragon-info.json"
	tetragonSocket = "/var/run/tetragon/tetragon.sock"
	answerWithin   = 3 * time.Second
)

// ringVariable makes the sensor's event ring small, for the tests that lose
// events on purpose.
const ringVariable = "PROFILE_TEST_RING_BYTES"

func insecureFlag() cli.Flag {
	return &cli.BoolFlag{Name: "insecure", Usage: "speak to an agent on another machine in plain text, which anyone on the way can read and change"}
}

// connectTo reaches the agent that --agent names, if --insecure allows it.
func connectTo(c *cli.Context, agent, db string) (*tetragon.Agent, error) {
	if agent != tetragon.Embedded && agent != "auto" {
		if err := tetragon.CheckAddress(agent, c.Bool("insecure")); errors.Is(err, tetragon.ErrPlaintext) {
			return nil, err
		} else if err != nil {
			return nil, usageError{err}
		}
	}
	return connect(c.Context, agent, db)
}

// connect reaches the agent that --agent names.
func connect(ctx context.Context, agent, db string) (*tetragon.Agent, error) {
	switch agent {
	case tetragon.Embedded:
		return embedded(ctx, db)
	case "auto":
		if a := localTetragon(ctx); a != nil {
			return a, nil
		}
		return embedded(ctx, db)
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	return tetragon.Dial(ctx, agent, sayWaiting)
}

// sayWaiting tells what an agent is waited for.
func sayWaiting(what string) { fmt.Fprintln(os.Stderr, showLine(what)) }

// localTetragon is the Tetragon of this machine, if one answers.
func localTetragon(ctx context.Context) *tetragon.Agent {
	address := "unix://" + tetragonSocket
	if raw, err := os.ReadFile(tetragonInfo); err == nil {
		var info struct {
			Address string `json:"server_address"`
		}
		if json.Unmarshal(raw, &info) == nil && info.Address != "" {
			address = info.Address
		}
	} else if _, err := os.Stat(tetragonSocket); err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	a, err := tetragon.Dial(ctx, address, sayWaiting)
	if err != nil {
		return nil
	}
	return a
}

// embedded starts the sensor in this process. Closing the agent stops it.
func embedded(ctx context.Context, db string) (*tetragon.Agent, error) {
	if err := canSense(); err != nil {
		return nil, err
	}
	cfg := sensor.Config{Name: pinName(db)}
	var err error
	if cfg.Node, err = os.Hostname(); err != nil {
		return nil, fmt.Errorf("find the machine's name: %w", err)
	}
	if text := os.Getenv(ringVariable); text != "" {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", ringVariable, err)
		}
		cfg.RingBytes = uint32(n)
	}
	// The sensor outlives the command's context: a learn that is interrupted
	// still has its last events to take in, and its policy to take off.
	conn := sensor.NewServer(cfg).Local()
	a, err := tetragon.Connect(context.WithoutCancel(ctx), tetragon.Embedded, conn, conn.Close)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return a, nil
}

var (
	errNotRoot = errors.New("this needs root")
	errNoBTF   = errors.New("this kernel has no BTF (/sys/kernel/btf/vmlinux)")
)

// canSense tells what the sensor needs and does not find, before it is tried.
func canSense() error {
	if os.Geteuid() != 0 {
		return errNotRoot
	}
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		return errNoBTF
	}
	_, err := cgroup.Root()
	return err
}

var unfit = regexp.MustCompile(`[^A-Za-z0-9_]+`)

// pinName names the directory of pins after the database: readable, and
// another for each path. A bpffs takes no dots.
func pinName(db string) string {
	db = resolveDB(db)
	sum := sha256.Sum256([]byte(db))
	base := unfit.ReplaceAllString(filepath.Base(db), "_")
	return fmt.Sprintf("%.40s-%x", base, sum[:6])
}

// resolveDB gives a database one name, whatever links lead to it, also where it
// is yet to be made.
func resolveDB(db string) string {
	if resolved, err := filepath.EvalSymlinks(db); err == nil {
		return resolved
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(db)); err == nil {
		return filepath.Join(dir, filepath.Base(db))
	}
	return db
}
