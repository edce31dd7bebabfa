package verify

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

	"sekisho/internal/certpath"
	"sekisho/internal/identity"
	ourpkix "sekisho/internal/pkix"
	"sekisho/internal/trust"
)

// pkitsCase is a case of the vectors.json that comes with Go.
type pkitsCase struct {
	Name                        string
	CertPath                    []string // anchor first
	CRLPath                     []string
	InitialPolicySet            []string
	InitialPolicyMappingInhibit bool
	InitialExplicitPolicy       bool
	InitialAnyPolicyInhibit     bool
	ShouldValidate              bool
}

// pkitsOnPurpose are the cases that are judged against the suite: DSA keys are not taken.
var pkitsOnPurpose = []string{"4.1.4", "4.1.5"}

// dataDir is where the real data are; the tests that need them say so when they are not there.
func dataDir() string {
	if dir := os.Getenv("SEKISHO_DATA"); dir != "" {
		return dir
	}
	return "../../../shared/data"
}

// NIST PKITS 1.0.1 with its CRLs: paths and revocation together, as `sekisho cert verify` judges them.
func TestPKITSWithCRLs(t *testing.T) {
	crls := filepath.Join(dataDir(), "pkits", "crls")
	if _, err := os.Stat(crls); err != nil {
		t.Skipf("the CRLs of PKITS are not here (SEKISHO_DATA): %v", err)
	}
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
	right := 0
	sections := make(map[string][2]int) // right, all
	for _, tc := range cases {
		number, _, _ := strings.Cut(tc.Name, " ")
		section := strings.Join(strings.Split(number, ".")[:2], ".")
		ok := t.Run(tc.Name, func(t *testing.T) { tc.run(t, number, dir, crls) })
		count := sections[section]
		count[1]++
		if ok && !slices.Contains(pkitsOnPurpose, number) {
			right++
			count[0]++
		}
		sections[section] = count
	}
	t.Logf("%d of %d as the suite says; 4.14: %v, 4.15: %v", right, len(cases), sections["4.14"], sections["4.15"])
	if right != 247 || len(cases) != 249 {
		t.Errorf("%d of %d, want 247 of 249", right, len(cases))
	}
}

func (tc pkitsCase) run(t *testing.T, number, dir, crls string) {
	var certs []*x509.Certificate // leaf first
	for _, name := range slices.Backward(tc.CertPath) {
		der, err := os.ReadFile(filepath.Join(dir, "certs", name))
		if err != nil {
			t.Fatal(err)
		}
		c, err := ourpkix.ParseAnyCertificate(der)
		if err != nil {
			// 4.4.15 has a negative serial number, which RFC 5280, Section 4.1.2.2 forbids: refused before its revocation
			// is asked for.
			t.Logf("%s cannot be read, and so is refused: %v", name, err)
			if tc.ShouldValidate && !slices.Contains(pkitsOnPurpose, number) {
				t.Error("it is valid")
			}
			return
		}
		certs = append(certs, c)
	}
	o := Offline{Policy: trust.Policy{Sources: []trust.Source{trust.CRL}, AllowAlgorithms: trust.WeakAlgorithms()}}
	o.Path = certpath.Options{
		Anchors: certs[len(certs)-1:], At: time.Date(2011, 4, 15, 12, 0, 0, 0, time.UTC), Purpose: certpath.AnyPurpose,
		Allows: o.Policy.Allows, RequireExplicitPolicy: tc.InitialExplicitPolicy,
		InhibitPolicyMapping: tc.InitialPolicyMappingInhibit, InhibitAnyPolicy: tc.InitialAnyPolicyInhibit,
	}
	for _, name := range tc.InitialPolicySet {
		text := "2.5.29.32.0"
		if n, ok := strings.CutPrefix(name, "NIST-test-policy-"); ok {
			text = "2.16.840.1.101.3.2.1.48." + n
		}
		oid, err := x509.ParseOID(text)
		if err != nil {
			t.Fatal(err)
		}
		o.Path.Policies = append(o.Path.Policies, oid)
	}
	for _, name := range tc.CRLPath {
		o.CRLs = append(o.CRLs, filepath.Join(crls, name))
	}
	x, err := o.Verify(t.Context(), certs[0], certs[1:])
	if err != nil {
		// A list that cannot be used is refused with the input; nothing is let in.
		t.Log(err)
		x.Reason = identity.RevocationUnknown
	}
	// Without an answer that every list gives, PKITS wants the path refused: unchecked certificates are such, too.
	valid := err == nil && x.Reason == identity.OK && x.Revocation == "good"
	want := tc.ShouldValidate && !slices.Contains(pkitsOnPurpose, number)
	if valid != want {
		report, _ := json.MarshalIndent(x, "", " ")
		t.Errorf("valid %v, want %v: %s", valid, want, report)
	}
}
