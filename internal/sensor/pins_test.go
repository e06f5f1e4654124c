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
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
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

// inNamespace runs the test that calls it again, in a mount namespace that has
// no bpffs, and what it says there is its output.
func inNamespace(t *testing.T) (again *exec.Cmd, tell io.WriteCloser, heard *bufio.Reader) {
	t.Helper()
	again = exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	again.Env = append(os.Environ(), inOtherNamespace+"=1")
	again.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	again.Stderr = os.Stderr
	tell, err := again.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := again.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Start(); err != nil {
		t.Fatal(err)
	}
	return again, tell, bufio.NewReader(out)
}

// hideBPFFS unmounts what the namespace has of other namespaces' bpffs.
func hideBPFFS(t *testing.T) {
	for _, path := range []string{systemBPFFS, ownBPFFS} {
		for isBPFFS(path) {
			if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A process with a mount namespace of its own, such as a unit with PrivateTmp,
// could mount a bpffs that only it sees, at the same place. When that goes,
// nothing of the others' may go with it.
func TestABPFFSOfAnotherMountNamespaceLeavesThePinsOfThisOne(t *testing.T) {
	if os.Getenv(inOtherNamespace) != "" {
		hideBPFFS(t)
		if err := os.MkdirAll(ownBPFFS, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("bpf", ownBPFFS, "bpf", 0, "mode=0700"); err != nil {
			t.Fatal(err)
		}
		fmt.Println("in use")
		io.Copy(io.Discard, os.Stdin)
		if err := unmountOwn(); err != nil {
			t.Error(err)
		}
		return
	}
	other, tell, heard := inNamespace(t)
	if line, err := heard.ReadString('\n'); line != "in use\n" {
		t.Errorf("the other says %q, %v", line, err)
	}
	pins, shared, err := usePins("pins-test-here")
	if err != nil {
		t.Fatal(err)
	}
	defer pins.release()
	defer shared.close()
	tell.Close()
	rest, _ := io.ReadAll(heard)
	if err := other.Wait(); err != nil {
		t.Errorf("the other ended with %v: %s", err, rest)
	}
	if _, err := os.Stat(filepath.Join(pins.path, "epoch")); err != nil || !isBPFFS(pins.path) {
		t.Errorf("what was pinned here is gone: %v", err)
	}
}

// What is in force where one mount namespace alone sees it would end with that,
// and no command outside would know of it. What is learned there ends with its
// process anyway.
func TestNothingIsInForceForOneMountNamespaceAlone(t *testing.T) {
	if os.Getenv(inOtherNamespace) != "" {
		hideBPFFS(t)
		refused := func(where string) {
			_, _, unlock, err := lockPins("pins-test-alone", true)
			if err == nil {
				unlock()
				sweep("pins-test-alone")
				t.Fatalf("pinned in a bpffs of this namespace alone, at %s", where)
			}
			if text := err.Error(); !strings.Contains(text, mountYourself) || !strings.Contains(text, where) {
				t.Errorf("at %s: %s", where, text)
			}
		}
		refused(ownBPFFS)
		if isBPFFS(ownBPFFS) {
			t.Error("the bpffs that was refused is mounted still")
		}
		pins, shared, err := usePins("pins-test-alone")
		if err != nil {
			t.Fatalf("an observer there: %v", err)
		}
		shared.close()
		if err := pins.release(); err != nil {
			t.Error(err)
		}
		if err := unix.Mount("bpf", systemBPFFS, "bpf", 0, "mode=0700"); err != nil {
			t.Fatal(err)
		}
		refused(systemBPFFS)
		return
	}
	other, _, heard := inNamespace(t)
	said, _ := io.ReadAll(heard)
	if err := other.Wait(); err != nil {
		t.Errorf("%v: %s", err, said)
	}
}

// One that has the machine's bpffs pins in that.
func TestAnotherMountNamespaceSharesTheMachinesPins(t *testing.T) {
	if os.Getenv(inOtherNamespace) != "" {
		pins, shared, err := usePins("pins-test-shared")
		if err != nil {
			t.Fatal(err)
		}
		shared.close()
		if err := pins.release(); err != nil {
			t.Error(err)
		}
		return
	}
	pins, shared, err := usePins("pins-test-shared")
	if err != nil {
		t.Fatal(err)
	}
	defer pins.release()
	defer shared.close()
	other, _, heard := inNamespace(t)
	said, _ := io.ReadAll(heard)
	if err := other.Wait(); err != nil {
		t.Errorf("%v: %s", err, said)
	}
	if _, err := os.Stat(filepath.Join(pins.path, "epoch")); err != nil {
		t.Errorf("the other has removed what is used here: %v", err)
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
