package store

import "time"

// Times are stored as microseconds since 1970-01-01T00:00Z, which every year of a certificate fits, and the zero Time
// too: it comes back as the zero Time.

func micros(t time.Time) int64 { return t.UnixMicro() }

func fromMicros(v int64) time.Time { return time.UnixMicro(v).UTC() }

func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}
