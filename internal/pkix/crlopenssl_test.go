package pkix_test

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	x509pkix "crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"sekisho/internal/pkix"
	"sekisho/internal/testpki"
)

// TestCRLsOfOpenSSL reads what openssl ca -gencrl makes: version 1 where it may, every reason, a hold, invalidity dates,
// scopes and relative names.
func TestCRLsOfOpenSSL(t *testing.T) {
	ca := newOpenSSLCA(t, opensslKey(t, "P-256"))
	write(t, ca.dir, "index.txt", []byte(strings.Join([]string{
		"R\t300101000000Z\t240102030405Z\t00FF\tunknown\t/CN=a",
		"R\t300101000000Z\t240102030406Z\t7F000000000000000000000000000000000000FF\tunknown\t/CN=b",
		"V\t300101000000Z\t\t05\tunknown\t/CN=c",
	}, "\n")+"\n"))
	v1 := parseHeader(t, ca.crl(t, "-name", "v1"))
	if v1.Version != 1 || v1.Number != nil || v1.AuthorityKeyID != nil || v1.IDP != nil || v1.SignatureAlgorithm() != "sha256-ecdsa" {
		t.Errorf("version %d, number %v, key %x, %s", v1.Version, v1.Number, v1.AuthorityKeyID, v1.SignatureAlgorithm())
	}
	if got := records(t, v1); len(got) != 2 || hex.EncodeToString(got[0].Serial) != "ff" || got[0].At != time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC) ||
		hex.EncodeToString(got[1].Serial) != "7f000000000000000000000000000000000000ff" {
		t.Errorf("%+v", got)
	}
	reasons := []string{
		"unspecified", "keyCompromise", "CACompromise", "affiliationChanged", "superseded", "cessationOfOperation",
		"holdInstruction,holdInstructionReject", "keyTime,20200304050607Z", "CAkeyTime,20200304050607Z",
	}
	want := []pkix.Reason{
		pkix.Unspecified, pkix.KeyCompromise, pkix.CACompromise, pkix.AffiliationChanged, pkix.Superseded, pkix.CessationOfOperation,
		pkix.CertificateHold, pkix.KeyCompromise, pkix.CACompromise,
	}
	var index strings.Builder
	for i, reason := range reasons {
		fmt.Fprintf(&index, "R\t300101000000Z\t240102030405Z,%s\t%02X\tunknown\t/CN=%d\n", reason, i+1, i)
	}
	write(t, ca.dir, "index.txt", []byte(index.String()))
	full := parseHeader(t, ca.crl(t, "-crlexts", "full"))
	if full.Version != 2 || full.Number.Int64() != 10 || !bytes.Equal(full.AuthorityKeyID, ca.cert.SubjectKeyId) {
		t.Errorf("version %d, number %v, key %x", full.Version, full.Number, full.AuthorityKeyID)
	}
	flags := pkix.ReasonFlag(pkix.KeyCompromise) | pkix.ReasonFlag(pkix.CACompromise) | pkix.ReasonFlag(pkix.AffiliationChanged)
	if idp := full.IDP; idp == nil || idp.OnlySomeReasons != flags || !idp.Indirect || idp.FullName[0].URI != "http://pki.example/full.crl" || idp.OnlyUser {
		t.Errorf("%+v", idp)
	}
	if len(full.FreshestCRL) != 1 || full.FreshestCRL[0].URLs()[0] != "http://pki.example/delta.crl" {
		t.Errorf("%+v", full.FreshestCRL)
	}
	for i, e := range records(t, full) {
		if invalid := i >= 7; e.Reason != want[i] || e.InvalidityDate.IsZero() == invalid || invalid && e.InvalidityDate != time.Date(2020, 3, 4, 5, 6, 7, 0, time.UTC) {
			t.Errorf("%s is %+v", reasons[i], e)
		}
	}
	relative := parseHeader(t, ca.crl(t, "-crlexts", "relative")).IDP
	if relative == nil || !relative.OnlyUser || relative.FullName != nil {
		t.Fatalf("%+v", relative)
	}
	if name := pkix.DNString(pkix.AppendRDN(ca.cert.RawSubject, relative.Relative)); name != "CN=shard 7+OU=crl,CN=openssl CA,O=Sekisho" {
		t.Errorf("the full name is %s", name)
	}
	if pkix.AppendRDN([]byte{0x31, 0}, relative.Relative) != nil || pkix.AppendRDN(nil, relative.Relative) != nil {
		t.Error("a name was made from none")
	}
}

// TestCRLWithoutNumber: what x509.Certificate.CreateCRL writes, and with it cfssl gencrl: version 2, an authority key
// identifier and nothing else.
func TestCRLWithoutNumber(t *testing.T) {
	ca := testpki.NewCA(t)
	revoked := []x509pkix.RevokedCertificate{{SerialNumber: big.NewInt(0x7fff), RevocationTime: time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)}}
	now := time.Now().Truncate(time.Second)
	der, err := ca.Cert.CreateCRL(rand.Reader, ca.Key, revoked, now, now.Add(time.Hour)) //nolint:staticcheck // cfssl calls it
	if err != nil {
		t.Fatal(err)
	}
	c := parseHeader(t, der)
	if c.Number != nil || c.Version != 2 || !bytes.Equal(c.AuthorityKeyID, ca.Cert.SubjectKeyId) || !c.ThisUpdate.Equal(now) || c.CheckSignature(ca.Cert.PublicKey) != nil {
		t.Errorf("version %d, number %v, key %x, %v", c.Version, c.Number, c.AuthorityKeyID, c.ThisUpdate)
	}
	if got := records(t, c); len(got) != 1 || !bytes.Equal(got[0].Serial, []byte{0x7f, 0xff}) {
		t.Errorf("%+v", got)
	}
	compareWithX509(t, "CreateCRL", der)
}

// TestCRLsOfX509: what crypto/x509 writes, with all that it can.
func TestCRLsOfX509(t *testing.T) {
	ca := testpki.NewCA(t)
	now := time.Now()
	for _, tmpl := range []x509.RevocationList{
		{Number: big.NewInt(0), ThisUpdate: now, NextUpdate: now.Add(time.Hour)},
		{Number: new(big.Int).SetBytes(bytes.Repeat([]byte{0x7f}, 20)), ThisUpdate: at(1950), NextUpdate: at(2060), RevokedCertificateEntries: []x509.RevocationListEntry{
			{SerialNumber: big.NewInt(0x80), RevocationTime: at(1960), ReasonCode: 6},
			{SerialNumber: big.NewInt(5), RevocationTime: at(2060)},
			{SerialNumber: big.NewInt(5), RevocationTime: at(2061), ExtraExtensions: []x509pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: []byte{1}}}},
		}, ExtraExtensions: []x509pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: []byte{1}}}},
	} {
		der, err := x509.CreateRevocationList(rand.Reader, &tmpl, ca.Cert, ca.Key)
		if err != nil {
			t.Fatal(err)
		}
		if got := records(t, parseHeader(t, der)); len(got) != len(tmpl.RevokedCertificateEntries) {
			t.Errorf("%d entries", len(got))
		}
		compareWithX509(t, tmpl.Number.String(), der)
	}
}

// TestCRLRoundTrip writes each scope and reads it again, and lets openssl read it.
func TestCRLRoundTrip(t *testing.T) {
	ca, other := testpki.NewCA(t), testpki.NewCA(t, testpki.Name("other"))
	dir := t.TempDir()
	some := pkix.ReasonFlag(pkix.KeyCompromise) | pkix.ReasonFlag(pkix.AACompromise)
	relative := testRDN("shard")
	for name, tt := range map[string]struct {
		edit func(*pkix.CRLTemplate)
		want pkix.IssuingDistributionPoint
		text string // as openssl prints it
	}{
		"users":      {func(c *pkix.CRLTemplate) { c.OnlyUserCerts = true }, pkix.IssuingDistributionPoint{OnlyUser: true}, "Only User Certificates"},
		"CAs":        {func(c *pkix.CRLTemplate) { c.OnlyCACerts = true }, pkix.IssuingDistributionPoint{OnlyCA: true}, "Only CA Certificates"},
		"attributes": {func(c *pkix.CRLTemplate) { c.OnlyAttributeCerts = true }, pkix.IssuingDistributionPoint{OnlyAttribute: true}, "Only Attribute Certificates"},
		"reasons":    {func(c *pkix.CRLTemplate) { c.OnlySomeReasons = some }, pkix.IssuingDistributionPoint{OnlySomeReasons: some}, "Key Compromise, AA Compromise"},
		"all":        {func(c *pkix.CRLTemplate) { c.OnlySomeReasons = pkix.AllReasons }, pkix.IssuingDistributionPoint{OnlySomeReasons: pkix.AllReasons}, "Only Some Reasons"},
		"indirect":   {func(c *pkix.CRLTemplate) { c.Indirect = true }, pkix.IssuingDistributionPoint{Indirect: true}, "Indirect CRL"},
		"relative":   {func(c *pkix.CRLTemplate) { c.RelativeName = relative }, pkix.IssuingDistributionPoint{Relative: relative}, "Relative Name"},
		"several":    {func(c *pkix.CRLTemplate) { c.OnlyCACerts, c.Indirect, c.OnlySomeReasons = true, true, some }, pkix.IssuingDistributionPoint{OnlyCA: true, Indirect: true, OnlySomeReasons: some}, "Only CA Certificates"},
	} {
		tmpl := template(ca)
		tt.edit(&tmpl)
		entry := pkix.CRLEntry{Serial: serial(t, "80"), At: at(2024), Reason: pkix.KeyCompromise, InvalidityDate: at(2001)}
		entries := pkix.AppendCRLEntry(nil, entry)
		if tmpl.Indirect {
			entry.Issuer = other.Cert.RawSubject
			entries = pkix.AppendCRLEntry(pkix.AppendCRLEntry(entries, entry), pkix.CRLEntry{Serial: serial(t, "81"), At: at(2051)})
		}
		der, err := pkix.SignCRL(tmpl, entries, ca.Key)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		c := parseHeader(t, der)
		if c.IDP == nil || fmt.Sprintf("%+v", *c.IDP) != fmt.Sprintf("%+v", tt.want) || c.CheckSignature(ca.Cert.PublicKey) != nil {
			t.Errorf("%s: %+v, want %+v", name, c.IDP, tt.want)
		}
		write(t, dir, "crl.der", der)
		if text := openssl(t, dir, "crl", "-inform", "DER", "-in", "crl.der", "-noout", "-text"); !strings.Contains(text, tt.text) {
			t.Errorf("%s: openssl does not print %q:\n%s", name, tt.text, text)
		}
		checkRoundTrip(t, c, tmpl.Indirect, other.Cert.RawSubject)
	}
	names := template(ca)
	names.DistributionPoints, names.DirectoryNames = []string{"http://a", "ldap://b"}, [][]byte{testName("c"), testName("d")}
	der, err := pkix.SignCRL(names, nil, ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	got := parseHeader(t, der).IDP.FullName
	if len(got) != 4 || got[0].URI != "http://a" || got[1].URI != "ldap://b" || !bytes.Equal(got[2].Name, testName("c")) || !bytes.Equal(got[3].Name, testName("d")) {
		t.Errorf("%+v", got)
	}
}

// checkRoundTrip wants the entries of TestCRLRoundTrip.
func checkRoundTrip(t *testing.T, c *pkix.CRL, indirect bool, issuer []byte) {
	t.Helper()
	got := records(t, c)
	want := []pkix.CRLRecord{{Serial: []byte{0x80}, At: at(2024), Reason: pkix.KeyCompromise, InvalidityDate: at(2001)}}
	if indirect {
		second := want[0]
		second.Issuer = issuer
		want = append(want, second, pkix.CRLRecord{Serial: []byte{0x81}, At: at(2051), Issuer: issuer})
	}
	if !slices.EqualFunc(got, want, func(a, b pkix.CRLRecord) bool {
		return bytes.Equal(a.Serial, b.Serial) && a.At.Equal(b.At.Truncate(time.Second)) && a.Reason == b.Reason &&
			a.InvalidityDate.Equal(b.InvalidityDate.Truncate(time.Second)) && bytes.Equal(a.Issuer, b.Issuer)
	}) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestSignCRLContradictions: what our own reader would refuse is not signed.
func TestSignCRLContradictions(t *testing.T) {
	ca := testpki.NewCA(t)
	entry := func(e pkix.CRLEntry) []byte {
		e.Serial, e.At = serial(t, "05"), at(2024)
		return pkix.AppendCRLEntry(nil, e)
	}
	var uris []string
	for i := range 65 {
		uris = append(uris, fmt.Sprintf("http://%d", i))
	}
	for name, tt := range map[string]struct {
		edit    func(*pkix.CRLTemplate)
		entries []byte
		want    string
	}{
		"user and CA":       {func(c *pkix.CRLTemplate) { c.OnlyUserCerts, c.OnlyCACerts = true, true }, nil, "more than one kind"},
		"CA and attribute":  {func(c *pkix.CRLTemplate) { c.OnlyAttributeCerts, c.OnlyCACerts = true, true }, nil, "more than one kind"},
		"both names":        {func(c *pkix.CRLTemplate) { c.RelativeName, c.DistributionPoints = testRDN("x"), uris[:1] }, nil, "not both"},
		"relative":          {func(c *pkix.CRLTemplate) { c.RelativeName = []byte{0x30, 0} }, nil, "the name of the distribution point cannot be read"},
		"relative, empty":   {func(c *pkix.CRLTemplate) { c.RelativeName = []byte{} }, nil, "the name of the distribution point cannot be read"},
		"directory":         {func(c *pkix.CRLTemplate) { c.DirectoryNames = [][]byte{{0x05, 0}} }, nil, "a directory name cannot be read"},
		"URI":               {func(c *pkix.CRLTemplate) { c.DistributionPoints = []string{"http://関所"} }, nil, "ASCII"},
		"65 URIs":           {func(c *pkix.CRLTemplate) { c.DistributionPoints = uris }, nil, "more than 64 names"},
		"freshest":          {func(c *pkix.CRLTemplate) { c.FreshestCRL = []string{"http://関所"} }, nil, "freshest CRL"},
		"unused reason":     {func(c *pkix.CRLTemplate) { c.OnlySomeReasons = 1 }, nil, "flags 1 to 8 only"},
		"no such reason":    {func(c *pkix.CRLTemplate) { c.OnlySomeReasons = 1 << 9 }, nil, "flags 1 to 8 only"},
		"reason not listed": {func(c *pkix.CRLTemplate) { c.OnlySomeReasons = 1 << 2 }, entry(pkix.CRLEntry{Reason: pkix.KeyCompromise}), "keyCompromise is none of the list's: cACompromise"},
		"issuer":            {func(*pkix.CRLTemplate) {}, entry(pkix.CRLEntry{Issuer: testName("x")}), "the CRL is not indirect"},
		"issuer, no name":   {func(c *pkix.CRLTemplate) { c.Indirect = true }, entry(pkix.CRLEntry{Issuer: []byte{5, 0}}), "issuer is no name"},
		"removed":           {func(*pkix.CRLTemplate) {}, entry(pkix.CRLEntry{Reason: pkix.RemoveFromCRL}), "removeFromCRL outside of a delta"},
		"not entries":       {func(*pkix.CRLTemplate) {}, []byte{0x30, 1}, "entry at offset 0"},
	} {
		tmpl := template(ca)
		tt.edit(&tmpl)
		_, err := pkix.SignCRL(tmpl, tt.entries, ca.Key)
		t.Run(name, func(t *testing.T) { wantError(t, err, tt.want) })
	}
}

func TestReasonFlags(t *testing.T) {
	want := map[pkix.Reason]int{
		pkix.KeyCompromise: 1, pkix.CACompromise: 2, pkix.AffiliationChanged: 3, pkix.Superseded: 4, pkix.CessationOfOperation: 5,
		pkix.CertificateHold: 6, pkix.PrivilegeWithdrawn: 7, pkix.AACompromise: 8,
	}
	var all pkix.ReasonFlags
	for _, r := range pkix.Reasons() {
		flag := pkix.ReasonFlag(r)
		if bit, ok := want[r]; ok && flag != 1<<bit || !ok && flag != 0 {
			t.Errorf("%v has flag %b", r, flag)
		}
		if flag != 0 && flag.String() != r.String() {
			t.Errorf("%v is written %v", r, flag)
		}
		all |= flag
	}
	if all != pkix.AllReasons {
		t.Errorf("all reasons are %b", all)
	}
	if text := (pkix.ReasonFlag(pkix.KeyCompromise) | pkix.ReasonFlag(pkix.AACompromise)).String(); text != "keyCompromise, aACompromise" {
		t.Error(text)
	}
}
