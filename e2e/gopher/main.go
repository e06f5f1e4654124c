// Command gopher is a static Go program for the end-to-end tests: it does
// nothing, or with an argument dials that address over TCP.
package main

import (
	"net"
	"os"
)

func main() {
	if len(os.Args) < 2 {
		return
	}
	conn, err := net.Dial("tcp", os.Args[1])
	if err != nil {
		os.Exit(1)
	}
	conn.Close()
}
