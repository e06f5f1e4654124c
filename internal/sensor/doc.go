// Package sensor is the embedded agent: an eBPF sensor for one machine behind
// Tetragon's own gRPC service. It is reached through that service alone; what
// the service has no word for travels as options of a policy and as labelled
// data of events (package tetragon names both). It decides nothing about
// evidence or verdicts, and keeps no database.
//
// The way through the room: Server answers the calls and reads policies
// (compile.go); Kernel is what it serves: an observer for each audit policy
// (observer.go), whose records the table turns into Tetragon's events
// (table.go, convert.go), and the enforcing policies, which live in pinned
// programs and maps (enforcement.go, pins.go) and outlive the process.
package sensor
