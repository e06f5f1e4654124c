// Package bpf holds the sensor's kernel side: one object, written in C (CO-RE),
// and the Go that bpf2go makes of it. Nothing else belongs here; what loads
// and reads it is package sensor.
package bpf

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -go-package bpf -type event -type kind -type flag -type mode -type walk_end -type match_op -type scope -type path_key -type tally -type count -type socket_event -type use_event Sensor sensor.bpf.c -- -O2 -g -Wall -Werror -I/usr/include/x86_64-linux-gnu
