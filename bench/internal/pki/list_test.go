package pki_test

import (
	"crypto/x509"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sekisho/bench/internal/pki"
)

// TestMakeList reads a list with crypto/x509, and lets openssl check its PEM form.
func TestMakeList(t *testing.T) {
	dir := t.TempDir()
	files, err := pki.Make(dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := pki.LoadCA(files.CA)
	if err != nil {
		t.Fatal(err)
	}
	revoked, err := pki.LoadRevoked(dir)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(revoked.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 1000} {
		path, err := pki.MakeList(dir, n)
		if err != nil {
			t.Fatal(err)
		}
		der, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		list, err := x509.ParseRevocationList(der)
		if err != nil {
			t.Fatal(err)
		}
		if err := list.CheckSignatureFrom(ca); err != nil {
			t.Error(err)
		}
		known := map[string]bool{}
		for i, e := range list.RevokedCertificateEntries {
			serial := pki.NewSerials().At(i)
			if e.SerialNumber.Cmp(new(big.Int).SetBytes(serial[:])) != 0 || e.SerialNumber.BitLen() != 127 {
				t.Fatalf("entry %d of %d has serial number %x, want %x", i, n, e.SerialNumber, serial)
			}
			known[e.SerialNumber.String()] = true
		}
		if len(known) != n || known[leaf.SerialNumber.String()] != (n > 0) {
			t.Errorf("%d serial numbers, the revoked client's among them: %v; want %d", len(known), known[leaf.SerialNumber.String()], n)
		}
		if path, err = pki.ListPEM(path); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), "openssl", "crl", "-in", path, "-noout", "-CAfile", filepath.Join(dir, "ca.pem")).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "verify OK") {
			t.Errorf("openssl: %v: %s", err, out)
		}
	}
}
