package main

import (
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"golang.org/x/term"
)

// sheet is a table for a person: no frames, columns wrapped to the terminal.
type sheet struct {
	t table.Writer
}

func newTable(w io.Writer, columns ...string) *sheet {
	t := table.NewWriter()
	t.SetOutputMirror(w)
	t.SuppressTrailingSpaces()
	style := table.StyleLight
	style.Options = table.OptionsNoBordersAndSeparators
	style.Format.Header = text.FormatUpper
	t.SetStyle(style)
	header := table.Row{}
	for _, c := range columns {
		header = append(header, c)
	}
	t.AppendHeader(header)
	if width, _, err := term.GetSize(int(os.Stdout.Fd())); err == nil && width > 0 {
		var configs []table.ColumnConfig
		for i := range columns {
			configs = append(configs, table.ColumnConfig{Number: i + 1, WidthMax: max(width/len(columns), 8), WidthMaxEnforcer: text.WrapText})
		}
		t.SetColumnConfigs(configs)
	}
	return &sheet{t: t}
}

func (s *sheet) row(cells ...string) {
	row := table.Row{}
	for _, c := range cells {
		row = append(row, c)
	}
	s.t.AppendRow(row)
}

func (s *sheet) print() {
	if s.t.Length() > 0 {
		s.t.Render()
	}
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
