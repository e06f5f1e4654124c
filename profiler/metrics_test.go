package profiler

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestMetricsOfARealAgentAreReadByName(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(recorded, "lossy-v1.7.metrics-after.txt"))
	if err != nil {
		t.Fatal(err)
	}
	answer := string(text)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(answer)) }))
	defer srv.Close()
	m := &metrics{url: srv.URL}
	values, err := m.read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const overflowed = "tetragon_notify_overflowed_events_total"
	if values[overflowed] != 30416 {
		t.Errorf("values %v, want 30416 overflowed", values)
	}
	begun := time.Unix(1, 0)
	if _, by := m.rose(values, begun); len(by) != 0 {
		t.Errorf("the first reading rose by %v: only differences count", by)
	}
	answer = strings.Replace(answer, overflowed+" 30416", overflowed+" 30420", 1)
	if values, err = m.read(t.Context()); err != nil {
		t.Fatal(err)
	}
	if since, by := m.rose(values, time.Unix(2, 0)); len(by) != 1 || by[overflowed] != 4 || !since.Equal(begun) {
		t.Errorf("since %v by %v, want 4 overflowed since the first reading", since, by)
	}
	answer = "go_goroutines 7\n"
	if _, err := m.read(t.Context()); err == nil || !strings.Contains(err.Error(), "none of the loss counters") {
		t.Errorf("error %v: those are another program's metrics", err)
	}
	srv.Close()
	if _, err := m.read(t.Context()); err == nil {
		t.Error("no error, and nobody answers")
	}
}
