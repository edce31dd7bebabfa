module sekisho/bench

go 1.27

toolchain go1.27.4

require golang.org/x/net v0.61.0

require golang.org/x/text v0.43.0 // indirect
