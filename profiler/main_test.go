package profiler_test

import (
	"flag"
	"log"
	"os"
	"testing"
)

// Most of the tests that are long wait for what a Tetragon may hold back, and
// need no processor meanwhile: more of them than there are processors may run.
func TestMain(m *testing.M) {
	flag.Parse()
	atOnce := flag.Lookup("test.parallel")
	if atOnce.Value.String() == atOnce.DefValue {
		if err := atOnce.Value.Set("12"); err != nil {
			log.Fatal(err)
		}
	}
	os.Exit(m.Run())
}
