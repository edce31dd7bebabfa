//go:build race

package pkix_test

const raceEnabled = true
