package pkix_test

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sekisho/internal/pkix"
)

// realFile is a file of the real data, which are beside the repository or where SEKISHO_DATA says.
func realFile(tb testing.TB, elements ...string) []byte {
	tb.Helper()
	data, err := os.ReadFile(filepath.Join(append([]string{realDir(tb)}, elements...)...))
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

func realDir(tb testing.TB) string {
	tb.Helper()
	dir := os.Getenv("SEKISHO_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "data")
	}
	if _, err := os.Stat(filepath.Join(dir, "crl")); err != nil {
		tb.Skipf("the real CRLs are not here; set SEKISHO_DATA: %v", err)
	}
	return dir
}

// pkitsCertificates is the folder of NIST's certificates, which comes with Go's source.
func pkitsCertificates(tb testing.TB) string {
	tb.Helper()
	root, err := exec.CommandContext(tb.Context(), "go", "env", "GOROOT").Output()
	if err != nil {
		tb.Fatal(err)
	}
	dir := filepath.Join(strings.TrimSpace(string(root)), "src", "crypto", "x509", "testdata", "nist-pkits", "certs")
	if _, err := os.Stat(dir); err != nil {
		tb.Skipf("PKITS comes with Go's source, which is not here: %v", err)
	}
	return dir
}

// records are the entries of a CRL. Each is read again by its offset.
func records(tb testing.TB, c *pkix.CRL) []pkix.CRLRecord {
	tb.Helper()
	var out []pkix.CRLRecord
	err := c.Walk(func(e pkix.CRLRecord) error {
		out = append(out, e)
		again, err := c.RecordAt(e.Offset)
		if again.Issuer == nil {
			again.Issuer = e.Issuer // of an entry before
		}
		if err != nil || cmp.Diff(e, again) != "" {
			tb.Errorf("RecordAt(%d): %v, %s", e.Offset, err, cmp.Diff(e, again))
		}
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

func TestAmazonCRLs(t *testing.T) {
	dir := filepath.Join(realDir(t), "crl", "amazon")
	for name, want := range map[string]struct {
		issuer, algorithm string
		entries           int
		number            int64
		url               string
	}{
		"r2m02.crl":   {"r2m02.cer", "sha256-rsa", 14102, 1374, "http://crl.r2m02.amazontrust.com/r2m02.crl"},
		"r2m01.crl":   {"r2m01.cer", "sha256-rsa", 2, 1344, "http://crl.r2m01.amazontrust.com/r2m01.crl"},
		"e2m02.crl":   {"e2m02.cer", "sha256-ecdsa", 2, 1377, "http://crl.e2m02.amazontrust.com/e2m02.crl"},
		"r4m01.crl":   {"r4m01.cer", "sha384-rsa", 1, 1374, "http://crl.r4m01.amazontrust.com/r4m01.crl"},
		"rootca1.crl": {"AmazonRootCA1.cer", "sha256-rsa", -1, 24, ""},
	} {
		c := parseHeader(t, realFile(t, "crl", "amazon", name))
		issuer, err := pkix.ParseAnyCertificate(realFile(t, "crl", "amazon", want.issuer))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.CheckSignature(issuer.PublicKey); err != nil || c.SignatureAlgorithm() != want.algorithm {
			t.Errorf("%s: %s, %v", name, c.SignatureAlgorithm(), err)
		}
		if !bytes.Equal(c.AuthorityKeyID, issuer.SubjectKeyId) || !bytes.Equal(c.RawIssuer, issuer.RawSubject) || c.Number.Int64() != want.number || c.Version != 2 {
			t.Errorf("%s: version %d, number %v, key %x, issuer %s", name, c.Version, c.Number, c.AuthorityKeyID, pkix.DNString(c.RawIssuer))
		}
		var url string
		if c.IDP != nil {
			url = c.IDP.FullName[0].URI
		}
		got := records(t, c)
		serials := make([]string, 0, len(got))
		for _, e := range got {
			serials = append(serials, strings.ToUpper(hex.EncodeToString(e.Serial)))
		}
		text := openssl(t, dir, "crl", "-inform", "DER", "-in", name, "-noout", "-text")
		var opensslSerials []string
		for _, m := range regexp.MustCompile(`Serial Number: ([0-9A-F]+)`).FindAllStringSubmatch(text, -1) {
			opensslSerials = append(opensslSerials, m[1])
		}
		if url != want.url || !slices.Equal(serials, opensslSerials) || want.entries >= 0 && len(got) != want.entries {
			t.Errorf("%s: URL %s, %d entries, openssl lists %d", name, url, len(got), len(opensslSerials))
		}
		compareWithX509(t, name, c.Raw)
	}
}

// TestPKITSCRLs reads NIST's 173 CRLs and finds for each the certificate whose key signed, but where the suite, or our
// taking no DSA, has it otherwise.
func TestPKITSCRLs(t *testing.T) {
	certDir, crlDir := pkitsCertificates(t), filepath.Join(realDir(t), "pkits", "crls")
	var certs []*x509.Certificate
	for name, der := range files(t, certDir, 405) {
		if c, err := pkix.ParseAnyCertificate(der); err == nil {
			certs = append(certs, c)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
	for name, der := range files(t, crlDir, 173) {
		c, err := pkix.ParseCRLHeader(der)
		if strings.HasPrefix(name, "UnknownCRLExtension") {
			wantError(t, err, "unknown critical extension 2.16.840.1.101.2.1.12.2")
			continue
		}
		if name == "BadCRLSignatureCACRL.crl" { // a BIT STRING with three bits unused
			wantError(t, err, "the signature cannot be read")
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		err = c.Walk(func(pkix.CRLRecord) error { return nil })
		switch name {
		case "UnknownCRLEntryExtensionCACRL.crl":
			wantError(t, err, "unknown critical extension 2.16.840.1.101.2.1.12.2 of the entry at offset")
		case "NegativeSerialNumberCACRL.crl":
			wantError(t, err, "entry at offset 141: the serial number is negative")
			c.SkipNegative = true
			if got := records(t, c); len(got) != 0 {
				t.Errorf("%s: %d entries, want none", name, len(got))
			}
		default:
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		compareWithX509(t, name, der)
		checkPKITSSignature(t, name, c, certs)
	}
}

// checkPKITSSignature looks for a certificate with the issuer's name whose key signed.
func checkPKITSSignature(t *testing.T, name string, c *pkix.CRL, certs []*x509.Certificate) {
	t.Helper()
	signed := slices.ContainsFunc(certs, func(cert *x509.Certificate) bool {
		return bytes.Equal(cert.RawSubject, c.RawIssuer) && c.CheckSignature(cert.PublicKey) == nil
	})
	want := true
	switch name {
	case "DSACACRL.crl", "DSAParametersInheritedCACRL.crl", // DSA is not taken
		"BadCRLIssuerNameCACRL.crl", "TwoCRLsCABadCRL.crl", // of another issuer on purpose
		"RolloverfromPrintableStringtoUTF8StringCACRL.crl": // the name is the same, written in another string type
		want = false
	}
	if signed != want {
		t.Errorf("%s of %s: signed by a certificate of that name: %v, want %v", name, pkix.DNString(c.RawIssuer), signed, want)
	}
}

// files are the files of a folder by their names.
func files(t *testing.T, dir string, want int) map[string][]byte {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string][]byte)
	for _, e := range entries {
		out[e.Name()] = readFile(t, dir, e.Name())
	}
	if len(out) != want {
		t.Fatalf("%d files in %s, want %d", len(out), dir, want)
	}
	return out
}

// TestPKITSScopes reads what the suite says about scopes, in the CRLs and in the certificates.
func TestPKITSScopes(t *testing.T) {
	crl := func(name string) *pkix.CRL { return parseHeader(t, realFile(t, "pkits", "crls", name+".crl")) }
	if idp := crl("onlyContainsUserCertsCACRL").IDP; idp == nil || !idp.OnlyUser || idp.OnlyCA || idp.OnlyAttribute || idp.Indirect {
		t.Errorf("onlyContainsUserCerts: %+v", idp)
	}
	if idp := crl("onlyContainsCACertsCACRL").IDP; idp == nil || !idp.OnlyCA || idp.OnlyUser {
		t.Errorf("onlyContainsCACerts: %+v", idp)
	}
	if idp := crl("onlyContainsAttributeCertsCACRL").IDP; idp == nil || !idp.OnlyAttribute {
		t.Errorf("onlyContainsAttributeCerts: %+v", idp)
	}
	some := pkix.ReasonFlag(pkix.KeyCompromise) | pkix.ReasonFlag(pkix.CACompromise)
	if idp := crl("onlySomeReasonsCA1compromiseCRL").IDP; idp == nil || idp.OnlySomeReasons != some {
		t.Errorf("onlySomeReasons: %+v", idp)
	}
	if idp := crl("onlySomeReasonsCA1otherreasonsCRL").IDP; idp == nil || idp.OnlySomeReasons != pkix.AllReasons&^some {
		t.Errorf("other reasons: %+v", idp)
	}
	delta := crl("deltaCRLCA1deltaCRL")
	if delta.BaseNumber == nil || delta.BaseNumber.Int64() != 1 || delta.Number.Int64() != 5 {
		t.Errorf("delta %v to %v", delta.Number, delta.BaseNumber)
	}
	if c := crl("deltaCRLCA1CRL"); len(c.FreshestCRL) != 1 || c.BaseNumber != nil {
		t.Errorf("freshest CRL: %+v", c.FreshestCRL)
	}
	var issuers []string
	indirect := crl("indirectCRLCA5CRL")
	for _, e := range records(t, indirect) {
		issuers = append(issuers, hex.EncodeToString(e.Serial)+" "+pkix.CommonName(e.Issuer)+pkix.Attribute(e.Issuer, "OU"))
	}
	want := []string{
		"01 ", "02 indirectCRL CA6", "03 indirectCRL CA6", "04 indirectCRL CA6", "05 indirectCRL CA7", "06 indirectCRL CA7",
		"07 indirectCRL CA7", "08 indirectCRL CA6", "09 indirectCRL CA6", "0a indirectCRL CA5",
		"0b indirectCRL CA5",
	}
	if diff := cmp.Diff(want, issuers); diff != "" || !indirect.IDP.Indirect || len(indirect.IDP.FullName) != 3 {
		t.Errorf("indirect: %s", diff)
	}
}

// compareWithX509 compares with crypto/x509 what both read.
func compareWithX509(t *testing.T, name string, der []byte) {
	t.Helper()
	theirs, err := x509.ParseRevocationList(der)
	if err != nil {
		return
	}
	c, err := pkix.ParseCRLHeader(der)
	if err != nil {
		return
	}
	sameTime := func(what string, ours, theirs time.Time) {
		if !ours.Equal(theirs) {
			t.Errorf("%s: %s is %v, crypto/x509 reads %v", name, what, ours, theirs)
		}
	}
	sameTime("thisUpdate", c.ThisUpdate, theirs.ThisUpdate)
	sameTime("nextUpdate", c.NextUpdate, theirs.NextUpdate)
	same := bytes.Equal(c.RawTBS, theirs.RawTBSRevocationList) && bytes.Equal(c.RawIssuer, theirs.RawIssuer) && c.Version == 2 &&
		bytes.Equal(c.Signature, theirs.Signature) && bytes.Equal(c.AuthorityKeyID, theirs.AuthorityKeyId)
	if !same || (c.Number == nil) != (theirs.Number == nil) || c.Number != nil && c.Number.Cmp(theirs.Number) != 0 {
		t.Errorf("%s: number %v, key %x; crypto/x509 reads %v, %x", name, c.Number, c.AuthorityKeyID, theirs.Number, theirs.AuthorityKeyId)
	}
	var at int
	err = c.Walk(func(e pkix.CRLRecord) error {
		if at >= len(theirs.RevokedCertificateEntries) {
			t.Fatalf("%s: more than the %d entries of crypto/x509", name, at)
		}
		want := theirs.RevokedCertificateEntries[at]
		at++
		sameTime("revocation date", e.At, want.RevocationTime)
		if !bytes.Equal(e.Serial, pkix.SerialOf(want.SerialNumber).Bytes()) || int(e.Reason) != want.ReasonCode {
			t.Errorf("%s: entry %d is %x %v, crypto/x509 reads %x %d", name, at, e.Serial, e.Reason, want.SerialNumber, want.ReasonCode)
		}
		return nil
	})
	if err == nil && at != len(theirs.RevokedCertificateEntries) {
		t.Errorf("%s: %d entries, crypto/x509 reads %d", name, at, len(theirs.RevokedCertificateEntries))
	}
}

// TestPKITSCertificates: all 405 but three are read, and what crypto/x509 refuses for its distribution points too.
func TestPKITSCertificates(t *testing.T) {
	refused := map[string]string{
		"DSAParametersInheritedCACert.crt":        "invalid DSA parameters",
		"ValidDSAParameterInheritanceTest5EE.crt": "invalid DSA parameters",
		"InvalidNegativeSerialNumberTest15EE.crt": "negative serial number",
	}
	setAside := make(map[string]int)
	for name, der := range files(t, pkitsCertificates(t), 405) {
		cert, err := pkix.ParseAnyCertificate(der)
		if want := refused[name]; want != "" {
			wantError(t, err, want)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		cdp, _, err := pkix.CertificateDistributionPoints(cert)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := x509.ParseCertificate(der); err != nil {
			setAside[name] = len(cdp)
			if !bytes.Equal(cert.Raw, der) || !bytes.Contains(der, cert.RawTBSCertificate) || bytes.Contains(cert.RawTBSCertificate, []byte{0x55, 0x1d, 127}) {
				t.Errorf("%s: not the original", name)
			}
		}
	}
	want := []string{
		"InvaliddistributionPointTest6EE.crt", "ValidcRLIssuerTest29EE.crt", "ValiddistributionPointTest4EE.crt", "ValiddistributionPointTest5EE.crt",
	}
	if got := slices.Sorted(maps.Keys(setAside)); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
