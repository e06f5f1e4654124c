package e2e

import (
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

func init() {
	maps.Copy(commands, map[string]func(ts *testscript.TestScript, neg bool, args []string){
		"uses":    cmdUses,
		"scoped":  cmdScoped,
		"overlay": cmdOverlay,
	})
}

// uses PATH FAMILIES…: the families that the report gives are exactly one of
// the lists, each a family or several with commas. Kernels differ: where only a
// check of CAP_NET_RAW is seen, AF_XDP counts as packet, and a raw socket as
// packet beside its own family.
func cmdUses(ts *testscript.TestScript, neg bool, args []string) {
	var families []string
	for _, n := range mustRow(ts, args[0]).Network {
		families = append(families, n.Family)
	}
	families = slices.Compact(families) // sorted in the report
	if got := strings.Join(families, ","); !slices.Contains(args[1:], got) {
		ts.Fatalf("%s: uses %q, want one of %q", args[0], got, args[1:])
	}
}

// scoped PATH VERDICT SEEN COMPLETE [FAMILY/TYPE=COUNT…]: besides the host's
// the report has one row of the path, of another scope, and exactly this in it.
func cmdScoped(ts *testscript.TestScript, neg bool, args []string) {
	var rows []reportRow
	for _, row := range report(ts).Executables {
		if row.Path == ts.MkAbs(args[0]) && row.Scope != "host" {
			rows = append(rows, row)
		}
	}
	if len(rows) != 1 {
		ts.Fatalf("%s: rows of other scopes are %+v, want one", args[0], rows)
	}
	got := []string{rows[0].Verdict, strconv.Itoa(rows[0].Runs.Seen), strconv.Itoa(rows[0].Runs.Complete)}
	for _, n := range rows[0].Network {
		got = append(got, n.Family+"/"+n.Type+"="+strconv.Itoa(n.Count))
	}
	if !slices.Equal(got, args[1:]) {
		ts.Fatalf("%s in scope %s: %q, want %q", args[0], rows[0].Scope, got, args[1:])
	}
}

// overlay DIR mounts an overlay there, of DIR.lower and DIR.upper, until the
// script ends. It lies in a tmpfs, since an overlay takes no overlay.
func cmdOverlay(ts *testscript.TestScript, neg bool, args []string) {
	dir := ts.MkAbs(args[0])
	for _, d := range []string{dir, dir + ".lower", dir + ".upper", dir + ".work"} {
		ts.Check(os.MkdirAll(d, 0o755))
	}
	data := "lowerdir=" + dir + ".lower,upperdir=" + dir + ".upper,workdir=" + dir + ".work"
	ts.Check(unix.Mount("overlay", dir, "overlay", 0, data))
	ts.Defer(func() { ts.Check(unix.Unmount(dir, unix.MNT_DETACH)) })
}
