package trust

import (
	"strings"
	"testing"
	"time"
)

// Places and words that a policy may have, and what is said of those that it may not.
func TestPolicyCheck(t *testing.T) {
	sets := func(places ...string) Policy { return Policy{CRLSets: places} }
	for _, tc := range []struct {
		name   string
		policy Policy
		say    string // "": taken
	}{
		{"the default", Policy{}, ""},
		{"CRLs by http", Policy{CRLs: []string{"http://ca.example/ca.crl", "/etc/ca.crl"}}, ""},
		{"CRLSet by https", sets("https://sets.example/crlset", "HTTPS://sets.example/two", "/var/lib/crlset"), ""},
		{"CRLSet by http", sets("http://sets.example/crlset"), "no signature"},
		{"CRLSet by HTTP", sets("HTTP://sets.example/crlset"), "no signature"},
		{"ledger of another CA", Policy{Sources: []Source{Ledger}}, "sources"},
		{"lists that are not asked", Policy{Sources: []Source{OCSP}, CRLs: []string{"/etc/ca.crl"}}, "sources does not name crl"},
		{"grace", Policy{Grace: 31 * 24 * time.Hour}, "grace"},
		{"refresh", Policy{Refresh: time.Millisecond}, "refresh"},
		{"responder by path", Policy{OCSPResponders: []string{"/ocsp"}}, "want a URL"},
		{"file URL", Policy{CRLs: []string{"file:///etc/ca.crl"}}, "neither a path"},
		{"eku", Policy{EKU: "maybe"}, "use demand or ignore"},
		{"weak, allowed", Policy{AllowAlgorithms: []string{"sha1-rsa"}}, ""},
		{"weaker", Policy{AllowAlgorithms: []string{"md5-rsa"}}, "allow_algorithms"},
	} {
		err := tc.policy.Check()
		if (err == nil) != (tc.say == "") || err != nil && !strings.Contains(err.Error(), tc.say) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.say)
		}
	}
}
