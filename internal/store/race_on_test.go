//go:build race

package store_test

// raceEnabled: the time is not judged then, for SQLite is Go here and ten times as slow under it.
const raceEnabled = true
