package certpath

import (
	"crypto/rand"
	"crypto/x509"
	x509pkix "crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sekisho/internal/pkix"
	"sekisho/internal/testpki"
)

// opensslDiffers are names, "name in base", on which OpenSSL 3.0 decides otherwise, with the reason. Names that we
// refuse to compare at all ("never") it compares as text.
var opensslDiffers = map[string]string{
	"a.example.com. in example.com":                  "a final dot is the root of the DNS, the name is the same without it",
	`"a"@example.com in a@example.com`:               "quotes are not part of a local part (RFC 5321, Section 4.1.2)",
	`"\a"@example.com in a@example.com`:              "nor are backslashes in quotes",
	"a@example.com in ":                              "the empty base, of which the RFC says nothing, has every address, as it has every domain",
	"https://user@example.com:8443?x in example.com": "userinfo is not the host, and a query may follow it (RFC 3986, Section 3.2)",
	"https://a.example.com#x in .example.com":        "a fragment may follow the host",
}

// TestConstraintsAgreeWithOpenSSL runs the table of name constraints through `openssl verify`, which knows directory
// names, e-mail addresses and URIs as RFC 5280 has them; crypto/x509 does not know the first and is laxer on the others.
func TestConstraintsAgreeWithOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed")
	}
	ca := testpki.NewCA(t)
	dir := t.TempDir()
	anchor := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(anchor, ca.PEM, 0o600); err != nil {
		t.Fatal(err)
	}
	judged, differ := 0, 0
	for i, tc := range withinCases {
		for _, kind := range []string{"permitted", "excluded"} {
			base := [][]byte{general(tc.form, tc.base)}
			der := subtreesOf(base, nil)
			if kind == "excluded" {
				der = subtreesOf(nil, base)
			}
			path := constrainedPath(t, ca, der, generals(general(tc.form, tc.name)))
			if path == nil {
				continue // crypto/x509 does not read such a name
			}
			judged++
			ours := Validate(path, Options{Anchors: []*x509.Certificate{ca.Cert}, At: time.Now()})
			file := filepath.Join(dir, fmt.Sprint(i, kind))
			text := append(pkix.EncodeCertificate(path[0].Raw), pkix.EncodeCertificate(path[1].Raw)...)
			if err := os.WriteFile(file, text, 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.CommandContext(t.Context(), "openssl", "verify", "-CAfile", anchor, "-untrusted", file, file).CombinedOutput()
			name := tc.name + " in " + tc.base
			if (err == nil) == (ours == nil) {
				continue
			}
			if differ++; opensslDiffers[name] == "" && (tc.want != "never" || ours == nil) {
				t.Errorf("%s %q: ours %v; openssl %s", kind, name, ours, strings.ReplaceAll(string(out), "\n", " "))
			}
		}
	}
	t.Logf("%d cases, of which OpenSSL decides %d otherwise", judged, differ)
	if judged < 60 {
		t.Error("most cases could not be judged")
	}
}

// constrainedPath is a leaf with the alternative names below an intermediate with the constraints, without a subject so
// that only the alternative names count; nil when crypto/x509 cannot read them.
func constrainedPath(t *testing.T, ca *testpki.CA, constraints, names []byte) Path {
	t.Helper()
	issue := func(subject string, parent *x509.Certificate, isCA bool, arc int, value []byte) (*x509.Certificate, error) {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			Subject: x509pkix.Name{CommonName: subject}, IsCA: isCA, BasicConstraintsValid: true,
			ExtraExtensions: []x509pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, arc}, Critical: true, Value: value}},
		}
		if subject == "" {
			template.Subject = x509pkix.Name{}
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, ca.Key.Public(), ca.Key)
		if err != nil {
			t.Fatal(err)
		}
		return x509.ParseCertificate(der)
	}
	sub, err := issue("constrained", ca.Cert, true, idNameConstraints, constraints)
	if err != nil {
		return nil
	}
	leaf, err := issue("", sub, false, idSubjectAltName, names)
	if err != nil {
		return nil
	}
	return Path{leaf, sub, ca.Cert}
}
