package edge

import (
	"iter"
	"strings"
)

// tokens yields the elements of a comma-separated header value, trimmed, without empty ones (RFC 9110, Section 5.6.1).
func tokens(value string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for value != "" {
			var token string
			token, value, _ = strings.Cut(value, ",")
			if token = strings.Trim(token, " \t"); token != "" && !yield(token) {
				return
			}
		}
	}
}

// hasToken reports whether one of the values lists the token, in either case; parameters are ignored.
func hasToken(values []string, token string) bool {
	for _, value := range values {
		for t := range tokens(value) {
			t, _, _ = strings.Cut(t, ";")
			if strings.EqualFold(strings.Trim(t, " \t"), token) {
				return true
			}
		}
	}
	return false
}
