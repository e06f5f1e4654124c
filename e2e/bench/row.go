package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"golang.org/x/sys/unix"
)

// row is one line of the table. Ratio is nil where there is no other side:
// then Ours is held against Target, otherwise Ratio is. A row without a target
// is there to be known.
type row struct {
	Name   string   `json:"name"`
	Ours   float64  `json:"ours"`
	Floor  *float64 `json:"floor"`
	Unit   string   `json:"unit"`
	Ratio  *float64 `json:"ratio"`
	Target *float64 `json:"target"`
}

func some(v float64) *float64 { return &v }

func (b *bench) add(r row) { b.rows = append(b.rows, r) }

// side measures one side once.
type side func() (float64, error)

// compare lets both sides take turns, each first every other time, and gives
// the medians.
func (b *bench) compare(n int, ours, floor side) (float64, float64, error) {
	var took [2][]float64
	for i := range n {
		for j := range 2 {
			if err := b.ctx.Err(); err != nil {
				return 0, 0, err
			}
			which := (i + j) % 2
			v, err := []side{ours, floor}[which]()
			if err != nil {
				return 0, 0, err
			}
			took[which] = append(took[which], v)
		}
	}
	return median(took[0]), median(took[1]), nil
}

// addRatio adds a row that is held against its other side.
func (b *bench) addRatio(name, unit string, ours, floor float64, target *float64) {
	b.add(row{Name: name, Ours: ours, Floor: &floor, Unit: unit, Ratio: some(ours / floor), Target: target})
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	n := len(v)
	if n == 0 {
		return math.NaN()
	}
	return (v[(n-1)/2] + v[n/2]) / 2
}

// machine says in general words what this was measured on.
func machine() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return runtime.GOARCH
	}
	return fmt.Sprintf("%d cores, Linux %s, %s", runtime.NumCPU(), unix.ByteSliceToString(name.Release[:]), runtime.GOARCH)
}

func writeJSON(path string, rows []row) error {
	out, err := json.MarshalIndent(struct {
		Schema  int    `json:"schema"`
		Machine string `json:"machine"`
		Rows    []row  `json:"rows"`
	}{1, machine(), rows}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(out, '\n'), 0o644)
}

// printTable prints the rows in Markdown, as the README has them.
func printTable(w io.Writer, rows []row) {
	t := table.NewWriter()
	t.SetOutputMirror(w)
	t.AppendHeader(table.Row{"what", "ours", "floor", "unit", "ratio", "target", "reached"})
	for _, r := range rows {
		t.AppendRow(table.Row{r.Name, number(&r.Ours), number(r.Floor), r.Unit, number(r.Ratio), number(r.Target), r.reached()})
	}
	right := []table.ColumnConfig{}
	for _, n := range []int{2, 3, 5, 6} {
		right = append(right, table.ColumnConfig{Number: n, Align: text.AlignRight})
	}
	t.SetColumnConfigs(right)
	fmt.Fprintf(w, "%s; medians of at least %d rounds\n\n", machine(), 10)
	t.RenderMarkdown()
}

func (r row) reached() string {
	held := r.Ours
	if r.Ratio != nil {
		held = *r.Ratio
	}
	switch {
	case r.Target == nil:
		return ""
	case held <= *r.Target:
		return "yes"
	}
	return "no"
}

// number has three digits that say something.
func number(v *float64) string {
	switch {
	case v == nil:
		return ""
	case math.Abs(*v) >= 100 || *v == math.Trunc(*v):
		return strconv.FormatFloat(*v, 'f', 0, 64)
	case math.Abs(*v) >= 10:
		return strconv.FormatFloat(*v, 'f', 1, 64)
	}
	return strconv.FormatFloat(*v, 'f', 3, 64)
}
