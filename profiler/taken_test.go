package profiler

import (
	"testing"

	"profile/store"
)

// What takes the place of a listing lists the same: in between nothing was
// network use. What it no longer lists may have been.
func TestWhatAnotherListsIsNoNetworkUse(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Labels = false }).open()
	list := func(generation uint64, paths ...string) []listing {
		return []listing{{generation, paths, store.StageEnforce}}
	}
	w.f.SetListed(list(1, "/bin/both", "/bin/first"))
	for pid, path := range map[uint32]string{10: "/bin/both", 11: "/bin/first", 12: "/bin/none"} {
		w.exec(pid, path)
		w.socket(pid, 2, 1)
		w.socket(pid, 2, 1)
	}
	w.exit(11)
	w.f.SetListed(list(2, "/bin/both"))
	for path, runs := range map[string]uint64{"/bin/both": 0, "/bin/first": 1, "/bin/none": 1} {
		if got := w.count(path).Network; got != runs {
			t.Errorf("%s used the network in %d runs, want %d", path, got, runs)
		}
	}
	w.f.SetListed(nil)
	w.f.SetListed(nil)
	if got := w.count("/bin/both").Network; got != 0 {
		t.Errorf("what the first listed was done with when the second took its place: %d runs", got)
	}
	w.f.SetListed(list(3, "/bin/both"))
	w.socket(10, 10, 2)
	w.f.SetListed(nil)
	w.socket(10, 10, 2)
	if got := w.tally("/bin/both").Network; len(got) != 1 || got[0].Runs != 1 {
		t.Errorf("network use %+v, want that of one run", got)
	}
}
