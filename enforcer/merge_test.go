package enforcer

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"profile/store"
)

func TestUsesOfSessionsAreBoundedTogether(t *testing.T) {
	use := func(host int) store.Use {
		u := store.Use{Family: "inet", Type: "stream", Runs: 1, First: at(float64(host)), Last: at(float64(host))}
		for port := range store.MaxDestinations {
			u.Destinations = append(u.Destinations, fmt.Sprintf("192.0.2.%d:%d", host, port))
		}
		return u
	}
	got := mergeUses(mergeUses(nil, []store.Use{use(2)}), []store.Use{use(1)})
	want := store.Use{Family: "inet", Type: "stream", Runs: 2, First: at(1), Last: at(2), Destinations: use(1).Destinations}
	if diff := cmp.Diff([]store.Use{want}, got); diff != "" {
		t.Errorf("uses (-want +got):\n%s", diff)
	}
}

func TestANameThatWasAScriptOnceStaysOne(t *testing.T) {
	script, plain := store.Entry{Name: "/bin/job", Runs: 1, Script: true}, store.Entry{Name: "/bin/job", Runs: 2}
	want := []store.Entry{{Name: "/bin/job", Runs: 3, Script: true}}
	for _, both := range [][2]store.Entry{{script, plain}, {plain, script}} {
		if diff := cmp.Diff(want, mergeEntries(mergeEntries(nil, both[:1]), both[1:])); diff != "" {
			t.Errorf("entries (-want +got):\n%s", diff)
		}
	}
}

func TestATimeThatIsNotKnownIsNotTheEarlier(t *testing.T) {
	var none time.Time
	for _, c := range [][3]time.Time{{at(1), at(2), at(1)}, {at(2), at(1), at(1)}, {none, at(1), at(1)}, {at(1), none, at(1)}, {none, none, none}} {
		if got := earlier(c[0], c[1]); !got.Equal(c[2]) {
			t.Errorf("of %v and %v, %v is the earlier", c[0], c[1], got)
		}
	}
}
