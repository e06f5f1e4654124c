// Site is the demo's server: it answers every request with one line, and logs
// each connection before a byte of it is read. It writes its address to the
// file that its first argument names, the log to the second. Called as "site
// get URL" it is a client instead, for a machine without curl.
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("site: want ADDRESS-FILE LOG-FILE, or get URL")
	}
	run := serve
	if os.Args[1] == "get" {
		run = func(_, url string) error { return get(url) }
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		log.Fatal("site: ", err)
	}
}

func serve(addressFile, logFile string) error {
	out, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	log.SetOutput(out)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := http.Server{
		ConnState: func(c net.Conn, s http.ConnState) {
			if s == http.StateNew {
				log.Print("connection from ", c.RemoteAddr())
			}
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintln(w, "hello from the network")
		}),
	}
	// Renamed into place: whoever reads it finds the address whole.
	if err := os.WriteFile(addressFile+".new", []byte(listener.Addr().String()+"\n"), 0o600); err != nil {
		return err
	}
	if err := os.Rename(addressFile+".new", addressFile); err != nil {
		return err
	}
	return server.Serve(listener)
}

func get(url string) error {
	answer, err := http.Get(url)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, err = io.Copy(os.Stdout, answer.Body)
	return err
}
