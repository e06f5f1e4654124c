package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"golang.org/x/term"
)

// sheet is a table for a person: no frames, columns wrapped so that it fits the
// terminal, if there is one.
type sheet struct {
	t      table.Writer
	widths []int // of the columns, unwrapped
}

// padding is what stands around the text of a column, and narrowest how narrow
// a column is made at most: on a terminal too narrow for that, lines wrap.
const (
	padding   = 2
	narrowest = 6
)

func newTable(w io.Writer, columns ...string) *sheet {
	t := table.NewWriter()
	t.SetOutputMirror(w)
	t.SuppressTrailingSpaces()
	style := table.StyleLight
	style.Options = table.OptionsNoBordersAndSeparators
	style.Format.Header = text.FormatUpper
	t.SetStyle(style)
	s := &sheet{t: t, widths: make([]int, len(columns))}
	t.AppendHeader(s.cells(columns))
	return s
}

func (s *sheet) cells(texts []string) table.Row {
	row := table.Row{}
	for i, c := range texts {
		s.widths[i] = max(s.widths[i], text.LongestLineLen(c))
		row = append(row, c)
	}
	return row
}

func (s *sheet) row(cells ...string) {
	for i := range cells {
		cells[i] = showLine(cells[i]) // reasons hold names that were learned
	}
	s.t.AppendRow(s.cells(cells))
}

func (s *sheet) print() {
	if s.t.Length() == 0 {
		return
	}
	if width, _, err := term.GetSize(int(os.Stdout.Fd())); err == nil && width > 0 {
		most := fit(s.widths, width)
		var configs []table.ColumnConfig
		for i := range s.widths {
			configs = append(configs, table.ColumnConfig{Number: i + 1, WidthMax: most, WidthMaxEnforcer: text.WrapText})
		}
		s.t.SetColumnConfigs(configs)
	}
	s.t.Render()
}

// fit is how wide the widest of the columns may be, so that all of them fit.
func fit(widths []int, width int) int {
	most := max(slices.Max(widths), narrowest)
	for ; most > narrowest; most-- {
		sum := 0
		for _, w := range widths {
			sum += min(w, most) + padding
		}
		if sum <= width {
			break
		}
	}
	return most
}

// showPath prints a path as it is, or quoted if a terminal would not show it so.
func showPath(path string) string {
	quoted := strconv.Quote(path)
	if quoted == `"`+path+`"` && !strings.ContainsAny(path, " \t") {
		return path
	}
	return quoted
}

func quoteAll(paths []string) string {
	var quoted []string
	for _, p := range paths {
		quoted = append(quoted, strconv.Quote(p))
	}
	return strings.Join(quoted, ", ")
}

// counted is a number of things with their name.
func counted(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
