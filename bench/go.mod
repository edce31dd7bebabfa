module sekisho/bench

go 1.27

toolchain go1.27.4

require (
	golang.org/x/net v0.61.0
	sekisho v0.0.0
)

require (
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/text v0.43.0 // indirect
)

replace sekisho => ../
