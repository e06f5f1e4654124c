package profiler

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	prom "github.com/prometheus/common/model"
)

// lossMetrics are the counters of a Tetragon that rise where it loses events
// (FACTS 12). Some have a value without any loss: only differences count.
var lossMetrics = []string{
	"tetragon_bpf_missed_events_total",
	"tetragon_notify_overflowed_events_total",
	"tetragon_observer_ringbuf_events_lost_total",
	"tetragon_observer_ringbuf_queue_events_lost_total",
	"tetragon_missed_prog_probes_total",
	"tetragon_missed_link_probes_total",
	"tetragon_events_missing_process_info_total",
}

// maxMetrics bounds what is read of an agent's metrics, in bytes.
const maxMetrics = 16 << 20

// metrics reads the loss counters at a URL.
type metrics struct {
	url  string
	last map[string]float64 // nil before the first reading
	at   time.Time
}

// read gives each loss counter, added up over its labels. One that the agent
// does not have is not there.
func (m *metrics) read(ctx context.Context) (map[string]float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.url, nil)
	if err != nil {
		return nil, fmt.Errorf("read metrics: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("read metrics: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("read metrics of %s: %s", m.url, resp.Status)
	}
	parser := expfmt.NewTextParser(prom.UTF8Validation)
	families, err := parser.TextToMetricFamilies(io.LimitReader(resp.Body, maxMetrics))
	if err != nil {
		return nil, fmt.Errorf("read metrics of %s: %w", m.url, err)
	}
	values := map[string]float64{}
	for _, name := range lossMetrics {
		if family, ok := families[name]; ok {
			values[name] = sum(family)
		}
	}
	if len(values) == 0 {
		return nil, fmt.Errorf("metrics of %s: none of the loss counters of a Tetragon is among them", m.url)
	}
	return values, nil
}

func sum(family *dto.MetricFamily) (total float64) {
	for _, one := range family.GetMetric() {
		total += one.GetCounter().GetValue() + one.GetGauge().GetValue() + one.GetUntyped().GetValue()
	}
	return total
}

// rose gives what each counter rose by since the last reading, and when that
// was. A counter that fell is an agent's that was restarted.
func (m *metrics) rose(values map[string]float64, now time.Time) (since time.Time, by map[string]uint64) {
	by = map[string]uint64{}
	for name, v := range values {
		if last, ok := m.last[name]; m.last != nil && v > last || !ok && m.last != nil && v > 0 {
			by[name] = uint64(v - last)
		}
	}
	since, m.last, m.at = m.at, values, now
	return since, by
}
