package crl

import (
	"crypto/x509"
	x509pkix "crypto/x509/pkix"
	"encoding/asn1"
	"testing"

	"sekisho/internal/pkix"
	"sekisho/internal/testpki"
)

// rdn is the content of a RelativeDistinguishedName with a common name.
func rdn(t *testing.T, cn string) []byte {
	t.Helper()
	raw, err := asn1.Marshal(x509pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: cn})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func uri(u string) pkix.GeneralName { return pkix.GeneralName{Tag: pkix.TagURI, URI: u} }

func TestCovers(t *testing.T) {
	ca, crlCA := testpki.NewCA(t), testpki.NewCA(t, testpki.Name("CRL issuer"))
	leaf := ca.Client("leaf").Cert
	const url = "http://ca.example/1.crl"
	some := pkix.ReasonFlag(pkix.KeyCompromise) | pkix.ReasonFlag(pkix.CACompromise)
	relative := rdn(t, "shard 1")
	point := func(edit func(*pkix.DistributionPoint)) []pkix.DistributionPoint {
		var d pkix.DistributionPoint
		edit(&d)
		return []pkix.DistributionPoint{d}
	}
	named := func(u string) []pkix.DistributionPoint {
		return point(func(d *pkix.DistributionPoint) { d.FullName = []pkix.GeneralName{uri(u)} })
	}
	at := func(edit func(*pkix.CRLTemplate)) func(*pkix.CRLTemplate) { return edit }
	shard := at(func(c *pkix.CRLTemplate) { c.DistributionPoints = []string{"http://elsewhere/", url} })
	indirect := at(func(c *pkix.CRLTemplate) { c.Indirect = true })
	tests := []struct {
		name   string
		by     *testpki.CA
		idp    func(*pkix.CRLTemplate)
		points []pkix.DistributionPoint
		isCA   bool
		want   pkix.ReasonFlags
	}{
		{"everything, no point", ca, nil, nil, false, pkix.AllReasons},
		{"everything, any point", ca, nil, named("http://elsewhere/"), false, pkix.AllReasons},
		{"of another CA", crlCA, nil, nil, false, 0},
		{"of another CA, its name in the point", crlCA, shard, named(url), false, 0},
		{"shard, no point", ca, shard, nil, false, 0},
		{"shard, the same", ca, shard, named(url), false, pkix.AllReasons},
		{"shard, the same but for the case of the host", ca, shard, named("HTTP://CA.example/1.crl"), false, pkix.AllReasons},
		{"shard, another path", ca, shard, named("http://ca.example/1.CRL"), false, 0},
		{"users, user", ca, at(func(c *pkix.CRLTemplate) { c.OnlyUserCerts = true }), nil, false, pkix.AllReasons},
		{"users, CA", ca, at(func(c *pkix.CRLTemplate) { c.OnlyUserCerts = true }), nil, true, 0},
		{"CAs, user", ca, at(func(c *pkix.CRLTemplate) { c.OnlyCACerts = true }), nil, false, 0},
		{"CAs, CA", ca, at(func(c *pkix.CRLTemplate) { c.OnlyCACerts = true }), nil, true, pkix.AllReasons},
		{"attribute certificates", ca, at(func(c *pkix.CRLTemplate) { c.OnlyAttributeCerts = true }), nil, false, 0},
		{"some reasons", ca, at(func(c *pkix.CRLTemplate) { c.OnlySomeReasons = some }), nil, false, some},
		{
			"some reasons in the point, not as to the issuer's list", ca, shard,
			point(func(d *pkix.DistributionPoint) { d.FullName, d.Reasons = []pkix.GeneralName{uri(url)}, some }), false, some,
		},
		{
			"reasons of both", ca, at(func(c *pkix.CRLTemplate) { shard(c); c.OnlySomeReasons = some }),
			point(func(d *pkix.DistributionPoint) {
				d.FullName, d.Reasons = []pkix.GeneralName{uri(url)}, pkix.ReasonFlag(pkix.KeyCompromise)|pkix.ReasonFlag(pkix.Superseded)
			}), false, pkix.ReasonFlag(pkix.KeyCompromise),
		},
		{
			"reasons that do not meet", ca, at(func(c *pkix.CRLTemplate) { shard(c); c.OnlySomeReasons = some }),
			point(func(d *pkix.DistributionPoint) {
				d.FullName, d.Reasons = []pkix.GeneralName{uri(url)}, pkix.ReasonFlag(pkix.Superseded)
			}), false, 0,
		},
		{
			"relative to the issuer", ca, at(func(c *pkix.CRLTemplate) { c.RelativeName = relative }),
			point(func(d *pkix.DistributionPoint) { d.Relative = relative }), false, pkix.AllReasons,
		},
		{
			"relative, another", ca, at(func(c *pkix.CRLTemplate) { c.RelativeName = relative }),
			point(func(d *pkix.DistributionPoint) { d.Relative = rdn(t, "shard 2") }), false, 0,
		},
		{
			"relative in the list, whole in the point", ca, at(func(c *pkix.CRLTemplate) { c.RelativeName = relative }),
			point(func(d *pkix.DistributionPoint) {
				d.FullName = []pkix.GeneralName{directoryName(pkix.AppendRDN(ca.Cert.RawSubject, relative))}
			}), false, pkix.AllReasons,
		},
		{
			"CRL issuer, indirect", crlCA, indirect,
			point(func(d *pkix.DistributionPoint) { d.CRLIssuer = [][]byte{crlCA.Cert.RawSubject} }), false, pkix.AllReasons,
		},
		{
			"CRL issuer, not indirect", crlCA, at(func(c *pkix.CRLTemplate) { c.OnlyUserCerts = true }),
			point(func(d *pkix.DistributionPoint) { d.CRLIssuer = [][]byte{crlCA.Cert.RawSubject} }), false, 0,
		},
		{"indirect, no CRL issuer", crlCA, indirect, named(url), false, 0},
		{
			"CRL issuer named in the list", crlCA, at(func(c *pkix.CRLTemplate) {
				c.Indirect, c.DirectoryNames = true, [][]byte{crlCA.Cert.RawSubject}
			}), point(func(d *pkix.DistributionPoint) { d.CRLIssuer = [][]byte{crlCA.Cert.RawSubject} }), false, pkix.AllReasons,
		},
		{
			"relative to the CRL issuer", crlCA, at(func(c *pkix.CRLTemplate) { c.Indirect, c.RelativeName = true, relative }),
			point(func(d *pkix.DistributionPoint) { d.CRLIssuer, d.Relative = [][]byte{crlCA.Cert.RawSubject}, relative }), false, pkix.AllReasons,
		},
		{
			"list named after the issuer, no point", ca, at(func(c *pkix.CRLTemplate) { c.DirectoryNames = [][]byte{ca.Cert.RawSubject} }),
			nil, false, pkix.AllReasons,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := template(test.by, 1)
			if test.idp != nil {
				test.idp(&c)
			}
			l := load(t, sign(t, test.by, c), Options{Issuer: test.by.Cert, Dir: t.TempDir()})
			got, ok := l.Covers(leaf, test.points, test.isCA)
			if got != test.want || ok != (test.want != 0) {
				t.Errorf("covers %v (%v), want %v", got, ok, test.want)
			}
		})
	}
	l := load(t, sign(t, ca, template(ca, 1)), Options{Issuer: ca.Cert})
	points := named(url)
	if a := testing.AllocsPerRun(100, func() { l.Covers(leaf, points, false) }); a != 0 {
		t.Errorf("Covers allocates %v times", a)
	}
	var _ *x509.Certificate = l.Issuer()
}
