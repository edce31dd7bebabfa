package certpath

import (
	"crypto/x509"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sekisho/internal/pkix"
)

// pkitsCase is a case of the vectors.json that comes with Go.
type pkitsCase struct {
	Name                        string
	CertPath                    []string // anchor first
	InitialPolicySet            []string
	InitialPolicyMappingInhibit bool
	InitialExplicitPolicy       bool
	InitialAnyPolicyInhibit     bool
	ShouldValidate              bool
}

// pkitsAboutCRLs are the cases outside 4.4, 4.14 and 4.15 that only a CRL makes invalid: without revocation their paths
// are good.
var pkitsAboutCRLs = map[string]string{
	"4.5.2": "the certificate is revoked", "4.5.5": "the certificate is revoked",
	"4.5.7": "the certificate is revoked",
	"4.7.4": "the CA may not sign CRLs", "4.7.5": "the CA may not sign CRLs",
}

// pkitsWeak are valid cases that are refused on purpose: DSA with SHA-1.
var pkitsWeak = map[string]bool{"4.1.4": true, "4.1.5": true}

// pkitsMixed are cases whose list is no path: it has certificates of CRL signers too. Build finds the path in it.
var pkitsMixed = []string{
	"4.4.19", "4.4.20", "4.4.21", "4.5.4", "4.5.5", "4.5.6", "4.5.7", "4.14.24", "4.14.25", "4.14.26", "4.14.27", "4.14.28",
	"4.14.29", "4.14.30", "4.14.31", "4.14.32", "4.14.33",
}

// pkitsUnreadable are cases with certificates that crypto/x509 does not read: keys with inherited DSA parameters, and
// negative serial numbers.
var pkitsUnreadable = map[string]bool{"4.1.5": true, "4.4.14": true, "4.4.15": true}

// TestPKITS runs the paths of NIST's suite (version 1.0.1). In 4.4, 4.14 and 4.15 revocation decides, so that here the
// path must be good, whatever the suite says with CRLs.
func TestPKITS(t *testing.T) {
	root, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(strings.TrimSpace(string(root)), "src/crypto/x509/testdata/nist-pkits")
	data, err := os.ReadFile(filepath.Join(dir, "vectors.json"))
	if err != nil {
		t.Skipf("PKITS comes with Go's source, which is not here: %v", err)
	}
	var cases []pkitsCase
	if err := json.Unmarshal(data, &cases); err != nil {
		t.Fatal(err)
	}
	var judged, excluded int
	for _, tc := range cases {
		number, _, _ := strings.Cut(tc.Name, " ")
		section := strings.Join(strings.Split(number, ".")[:2], ".")
		aboutCRLs := section == "4.4" || section == "4.14" || section == "4.15" || pkitsAboutCRLs[number] != ""
		if aboutCRLs {
			excluded++
		} else {
			judged++
		}
		t.Run(tc.Name, func(t *testing.T) {
			path, ok := readPKITSPath(t, filepath.Join(dir, "certs"), tc.CertPath)
			if !ok {
				if !pkitsUnreadable[number] {
					t.Error("it cannot be read")
				}
				return
			}
			want := (tc.ShouldValidate || aboutCRLs) && !pkitsWeak[number]
			o := tc.options(t, path[len(path)-1])
			paths, err := Build(path[0], path[1:], o)
			if (err == nil) != want || (len(paths) > 0) != want {
				t.Errorf("Build: %v, want valid: %v", err, want)
			}
			for _, found := range paths {
				if err := Validate(found, o); err != nil {
					t.Errorf("Validate of what Build found: %v", err)
				}
			}
			if err := Validate(path, o); (err == nil) != want && !slices.Contains(pkitsMixed, number) {
				t.Errorf("Validate: %v, want valid: %v", err, want)
			}
		})
	}
	t.Logf("%d cases, of them %d without revocation, %d with paths that are good without it", len(cases), judged, excluded)
	if judged != 178 || excluded != 71 {
		t.Errorf("the suite has %d and %d cases of the two kinds", judged, excluded)
	}
}

func (tc pkitsCase) options(t *testing.T, anchor *x509.Certificate) Options {
	t.Helper()
	o := Options{
		Anchors:               []*x509.Certificate{anchor},
		At:                    time.Date(2011, 4, 15, 12, 0, 0, 0, time.UTC),
		Purpose:               AnyPurpose,
		RequireExplicitPolicy: tc.InitialExplicitPolicy,
		InhibitPolicyMapping:  tc.InitialPolicyMappingInhibit,
		InhibitAnyPolicy:      tc.InitialAnyPolicyInhibit,
	}
	for _, name := range tc.InitialPolicySet {
		text := "2.5.29.32.0"
		if number, ok := strings.CutPrefix(name, "NIST-test-policy-"); ok {
			text = "2.16.840.1.101.3.2.1.48." + number
		} else if name != "anyPolicy" {
			t.Fatalf("unknown policy %q", name)
		}
		oid, err := x509.ParseOID(text)
		if err != nil {
			t.Fatal(err)
		}
		o.Policies = append(o.Policies, oid)
	}
	return o
}

// readPKITSPath reads a path and turns it leaf first; ok is false where a certificate cannot be read.
func readPKITSPath(t *testing.T, dir string, names []string) (path Path, ok bool) {
	t.Helper()
	for _, name := range slices.Backward(names) {
		der, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		c, err := pkix.ParseAnyCertificate(der)
		if err != nil {
			t.Logf("%s: %v", name, err)
			return nil, false
		}
		path = append(path, c)
	}
	return path, true
}
