package sensor

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

// On a machine without a bpffs each of these mounts and unmounts one: nobody's
// directory may be made below a mount that has gone, nor be missed.
func TestPinDirectoriesComeAndGoSideBySide(t *testing.T) {
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			for range 40 {
				pins, shared, err := usePins(fmt.Sprintf("pins-test-%d", i))
				if err != nil {
					t.Errorf("use: %v", err)
					return
				}
				if !isBPFFS(pins.path) {
					t.Errorf("%s is in no bpffs", pins.path)
				}
				shared.close()
				if err := pins.release(); err != nil {
					t.Errorf("release: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	for i := range 6 {
		path := fmt.Sprintf("%s/pins-test-%d", ownDir, i)
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is left", path)
		}
	}
	if left := belowTheMount(t); len(left) > 0 {
		t.Errorf("%v left where no bpffs is mounted", left)
	}
}

// Where nothing but an empty bpffs was seen, another process may have pinned
// something since.
func TestABPFFSThatIsUsedAgainStaysMounted(t *testing.T) {
	pins, shared, err := usePins("pins-test-again")
	if err != nil {
		t.Fatal(err)
	}
	defer pins.release()
	// Nothing of it is open, as after a command that enforces.
	shared.close()
	pins.held.Close()
	pins.held = nil
	if err := unmountOwn(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(pins.path, "epoch")); err != nil {
		t.Errorf("what was pinned is gone: %v", err)
	}
}

const inOtherNamespace = "PINS_TEST_OTHER_NAMESPACE"

// A process with a mount namespace of its own, such as a unit with PrivateTmp,
// mounts a bpffs that only it sees, at the same place. When it ends, nothing of
// the others' may end with it.
func TestAReleaseInAnotherMountNamespaceLeavesThePinsOfThisOne(t *testing.T) {
	if os.Getenv(inOtherNamespace) != "" {
		usesPinsUntilTold(t)
		return
	}
	other := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	other.Env = append(os.Environ(), inOtherNamespace+"=1")
	other.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	other.Stderr = os.Stderr
	tell, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	heard, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(heard)
	if line, err := answers.ReadString('\n'); line != "in use\n" {
		t.Errorf("the other says %q, %v", line, err)
	}
	pins, shared, err := usePins("pins-test-here")
	if err != nil {
		t.Fatal(err)
	}
	defer pins.release()
	defer shared.close()
	tell.Close()
	rest, _ := io.ReadAll(answers)
	if err := other.Wait(); err != nil {
		t.Errorf("the other ended with %v: %s", err, rest)
	}
	if _, err := os.Stat(filepath.Join(pins.path, "epoch")); err != nil || !isBPFFS(pins.path) {
		t.Errorf("what was pinned here is gone: %v", err)
	}
}

func usesPinsUntilTold(t *testing.T) {
	pins, shared, err := usePins("pins-test-there")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("in use")
	io.Copy(io.Discard, os.Stdin)
	shared.close()
	if err := pins.release(); err != nil {
		t.Error(err)
	}
}

// belowTheMount is what lies in the mount point itself, nil while something is
// mounted there.
func belowTheMount(t *testing.T) []os.DirEntry {
	lock, err := lockAt(filepath.Dir(ownBPFFS), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if isBPFFS(ownBPFFS) {
		return nil
	}
	left, _ := os.ReadDir(ownBPFFS)
	return left
}
