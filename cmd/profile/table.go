package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"golang.org/x/term"
)

// sheet is a table for a person: no frames, columns wrapped so that it fits the
// terminal, if there is one. On one too narrow for columns that can be read, it
// is a list: of each row the first cell, and below it the others, named.
type sheet struct {
	w       io.Writer
	columns []string
	rows    []table.Row
	widths  []int // of the columns, unwrapped
}

// padding is what stands around the text of a column, and narrowest how narrow
// a column is made at most.
const (
	padding   = 2
	narrowest = 10
)

func newTable(w io.Writer, columns ...string) *sheet {
	s := &sheet{w: w, columns: columns, widths: make([]int, len(columns))}
	for i, c := range columns {
		s.widths[i] = text.LongestLineLen(c)
	}
	return s
}

func (s *sheet) row(cells ...string) {
	row := table.Row{}
	for i, c := range cells {
		c = showLine(c) // reasons hold names that were learned
		s.widths[i] = max(s.widths[i], text.LongestLineLen(c))
		row = append(row, c)
	}
	s.rows = append(s.rows, row)
}

func (s *sheet) print() {
	width, _, err := term.GetSize(int(os.Stdout.Fd()))
	if err != nil || width <= 0 {
		width = math.MaxInt
	}
	switch most, ok := fit(s.widths, width); {
	case len(s.rows) == 0:
	case ok:
		s.printColumns(most)
	default:
		s.printList(width)
	}
}

func (s *sheet) printColumns(most int) {
	t := table.NewWriter()
	t.SetOutputMirror(s.w)
	t.SuppressTrailingSpaces()
	style := table.StyleLight
	style.Options = table.OptionsNoBordersAndSeparators
	style.Format.Header = text.FormatUpper
	t.SetStyle(style)
	header := table.Row{}
	var configs []table.ColumnConfig
	for i, c := range s.columns {
		header = append(header, c)
		configs = append(configs, table.ColumnConfig{Number: i + 1, WidthMax: most, WidthMaxEnforcer: text.WrapSoft})
	}
	t.AppendHeader(header)
	t.SetColumnConfigs(configs)
	t.AppendRows(s.rows)
	t.Render()
}

func (s *sheet) printList(width int) {
	for _, row := range s.rows {
		for i, cell := range row {
			switch {
			case i == 0:
				printWrapped(s.w, " ", fmt.Sprint(cell), width)
			case cell != "":
				printWrapped(s.w, "   ", s.columns[i]+": "+fmt.Sprint(cell), width)
			}
		}
	}
}

// printWrapped leaves one column free, into which a wide character may reach.
func printWrapped(w io.Writer, indent, line string, width int) {
	for part := range strings.Lines(text.WrapSoft(line, max(width-len(indent)-1, 1))) {
		fmt.Fprintln(w, indent+strings.TrimRight(part, " \n"))
	}
}

// fit is how wide the widest of the columns may be, so that all of them fit. If
// they do not even where each has narrowest, ok is false.
func fit(widths []int, width int) (most int, ok bool) {
	for most = max(slices.Max(widths), narrowest); most >= narrowest; most-- {
		sum := 0
		for _, w := range widths {
			sum += min(w, most) + padding
		}
		if sum <= width {
			return most, true
		}
	}
	return narrowest, false
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
