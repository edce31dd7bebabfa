//go:build race

package pkix_test

// raceEnabled: the time is not judged then, for the race detector looks at every octet that is read.
const raceEnabled = true
