package edge

import "testing"

func TestAccepts(t *testing.T) {
	for _, tt := range []struct {
		accept string
		want   form
	}{
		{"", formText},
		{"*/*", formText},
		{"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8", formHTML},
		{"application/json", formJSON},
		{"application/json, text/plain, */*", formJSON},
		{"application/problem+json", formJSON},
		{"text/plain, application/json", formText},
		{"text/html;q=0.5, application/json;q=0.9", formJSON},
		{"*/*, text/html", formHTML},
		{"text/html;q=0, */*", formText},
		{"TEXT/HTML ; Q=1.0", formHTML},
		{"application/json;q=nonsense", formText},
		{"image/png", formText},
		{",,;;q=,", formText},
	} {
		if got := accepts([]string{tt.accept}); got != tt.want {
			t.Errorf("accepts(%q) = %v, want %v", tt.accept, got, tt.want)
		}
	}
}
