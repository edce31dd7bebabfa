package pkix_test

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	x509pkix "crypto/x509/pkix"
	"encoding/asn1"
	"slices"
	"testing"
	"time"

	"sekisho/internal/pkix"
	"sekisho/internal/testpki"
)

// withCDP is a certificate with cRLDistributionPoints of the value. crypto/x509 writes what it would not read.
func withCDP(tb testing.TB, ca *testpki.CA, critical bool, value []byte, more ...x509pkix.Extension) []byte {
	tb.Helper()
	tmpl := &x509.Certificate{
		SerialNumber: ca.Cert.SerialNumber, Subject: x509pkix.Name{CommonName: "leaf"}, NotBefore: ca.Cert.NotBefore, NotAfter: ca.Cert.NotAfter,
		ExtraExtensions: append([]x509pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 31}, Critical: critical, Value: value}}, more...),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.Cert, ca.Key.Public(), ca.Key)
	if err != nil {
		tb.Fatal(err)
	}
	return der
}

// The three parts of a DistributionPoint.
func pointName(content ...[]byte) []byte { return tlv(0xa0, content...) }
func fullName(names ...[]byte) []byte    { return pointName(tlv(0xa0, names...)) }
func uriName(text string) []byte         { return tlv(0x86, []byte(text)) }
func crlIssuer(names ...[]byte) []byte   { return tlv(0xa2, names...) }
func directory(cn string) []byte         { return tlv(0xa4, testName(cn)) }

func TestCertificateDistributionPoints(t *testing.T) {
	ca := testpki.NewCA(t)
	relative := testRDN("shard")
	value := tlv(0x30,
		tlv(0x30, fullName(uriName("http://a/1"), directory("d"), uriName("ldap://b"), uriName("HTTPS://c/2"), tlv(0x82, []byte("dns")), uriName("http://"), uriName("http://x y"))),
		tlv(0x30, pointName(tlv(0xa1, relative)), tlv(0x81, []byte{6, 0x40}), crlIssuer(uriName("u"), directory("issuer"))),
		tlv(0x30, crlIssuer(directory("one"), directory("two"))))
	fresh := x509pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 46}, Value: tlv(0x30, tlv(0x30, fullName(uriName("http://delta"))))}
	cert, err := pkix.ParseAnyCertificate(withCDP(t, ca, false, value, fresh))
	if err != nil {
		t.Fatal(err)
	}
	cdp, freshest, err := pkix.CertificateDistributionPoints(cert)
	if err != nil || len(cdp) != 3 || len(freshest) != 1 {
		t.Fatalf("%d, %d, %v", len(cdp), len(freshest), err)
	}
	if urls := cdp[0].URLs(); !slices.Equal(urls, []string{"http://a/1", "HTTPS://c/2"}) || len(cdp[0].FullName) != 7 || cdp[0].Reasons != 0 || cdp[0].CRLIssuer != nil {
		t.Errorf("%+v", cdp[0])
	}
	if !bytes.Equal(cdp[0].FullName[1].Name, testName("d")) || !bytes.Equal(cdp[0].FullName[1].Raw, directory("d")) || cdp[0].FullName[4].Tag != 2 {
		t.Errorf("%+v", cdp[0].FullName)
	}
	if !bytes.Equal(cdp[1].Relative, relative) || cdp[1].Reasons != pkix.ReasonFlag(pkix.KeyCompromise) || len(cdp[1].CRLIssuer) != 1 ||
		!bytes.Equal(cdp[1].CRLIssuer[0], testName("issuer")) || cdp[1].URLs() != nil {
		t.Errorf("%+v", cdp[1])
	}
	if len(cdp[2].CRLIssuer) != 2 || cdp[2].FullName != nil || cdp[2].Relative != nil {
		t.Errorf("%+v", cdp[2])
	}
	if !slices.Equal(freshest[0].URLs(), []string{"http://delta"}) {
		t.Errorf("%+v", freshest)
	}
	none, freshest, err := pkix.CertificateDistributionPoints(ca.Cert)
	if none != nil || freshest != nil || err != nil {
		t.Errorf("%v %v %v", none, freshest, err)
	}
}

// brokenPoints are values of cRLDistributionPoints, and the words of the error.
func brokenPoints() map[string]brokenCRL {
	point := func(content ...[]byte) []byte { return tlv(0x30, tlv(0x30, content...)) }
	u := fullName(uriName("http://a"))
	return map[string]brokenCRL{
		"empty":             {nil, "no list of distribution points"},
		"none":              {tlv(0x30), "no list of distribution points"},
		"tail":              {append(point(u), 0), "no list of distribution points"},
		"SET":               {tlv(0x31, tlv(0x30, u)), "no list of distribution points"},
		"no SEQUENCE":       {tlv(0x30, tlv(0x31, u)), "a distribution point cannot be read"},
		"nothing":           {point(), "neither a name nor a CRL issuer"},
		"reasons only":      {point(tlv(0x81, []byte{6, 0x40})), "neither a name nor a CRL issuer"},
		"reasons empty":     {point(u, tlv(0x81, []byte{0, 0})), "the set of reasons is empty"},
		"reasons":           {point(u, tlv(0x81)), "no BIT STRING"},
		"order":             {point(crlIssuer(directory("x")), u), "its fields cannot be read"},
		"unknown field":     {point(u, tlv(0x83)), "its fields cannot be read"},
		"name empty":        {point(pointName()), "the name of the distribution point"},
		"no names":          {point(fullName()), "a list of names is empty"},
		"two names":         {point(pointName(tlv(0xa0, uriName("u")), tlv(0xa0, uriName("u")))), "the full name cannot be read"},
		"name cut":          {point(pointName([]byte{0xa0, 9, 0x86})), "the full name cannot be read"},
		"general name cut":  {point(fullName([]byte{0x86, 9})), "a GeneralName cannot be read"},
		"relative empty":    {point(pointName(tlv(0xa1))), "the name of the distribution point"},
		"relative":          {point(pointName(tlv(0xa1, tlv(0x30)))), "the name of the distribution point"},
		"relative, two":     {point(pointName(tlv(0xa1, testRDN("x"))), crlIssuer(directory("x"), directory("y"))), "more than one CRL issuer"},
		"issuer none":       {point(u, crlIssuer()), "CRL issuer: a list of names is empty"},
		"issuer URI":        {point(u, crlIssuer(uriName("u"))), "has no directory name"},
		"issuer no name":    {point(u, crlIssuer(tlv(0xa4, tlv(0x02)))), "CRL issuer: a directory name"},
		"33 points":         {tlv(0x30, bytes.Repeat(tlv(0x30, u), 33)), "more than 32 distribution points"},
		"65 names":          {point(fullName(bytes.Repeat(uriName("u"), 65))), "distribution point 1: more than 64 names"},
		"second":            {tlv(0x30, tlv(0x30, u), tlv(0x30)), "distribution point 2"},
		"URI not ASCII":     {point(fullName(uriName("http://関所"))), "ASCII"},
		"high tag":          {point(fullName([]byte{0x9f, 0x26, 0})), "a GeneralName cannot be read"},
		"indefinite length": {[]byte{0x30, 0x80, 0x30, 0, 0, 0}, "no list of distribution points"},
	}
}

func TestInvariant13BrokenDistributionPoints(t *testing.T) {
	id := asn1.ObjectIdentifier{2, 5, 29, 31}
	for name, b := range brokenPoints() {
		for _, id := range []asn1.ObjectIdentifier{id, {2, 5, 29, 46}} {
			cdp, fresh, err := pkix.CertificateDistributionPoints(&x509.Certificate{Extensions: []x509pkix.Extension{{Id: id, Value: b.der}}})
			t.Run(name, func(t *testing.T) { wantError(t, err, b.want) })
			if cdp != nil || fresh != nil {
				t.Errorf("%s: points with an error", name)
			}
		}
	}
	good := x509pkix.Extension{Id: id, Value: tlv(0x30, tlv(0x30, fullName(uriName("http://a"))))}
	_, _, err := pkix.CertificateDistributionPoints(&x509.Certificate{Extensions: []x509pkix.Extension{good, good}})
	wantError(t, err, "occurs twice")
}

// TestParseAnyCertificate: what crypto/x509 reads is read the same; its refusal of distribution points is overcome, and
// no other.
func TestParseAnyCertificate(t *testing.T) {
	ca := testpki.NewCA(t)
	plain, err := pkix.ParseAnyCertificate(ca.Cert.Raw)
	if err != nil || !plain.Equal(ca.Cert) {
		t.Error(err)
	}
	relative := tlv(0x30, tlv(0x30, pointName(tlv(0xa1, testRDN("shard")))), tlv(0x30, fullName(uriName("http://a"), uriName("ldap://b"))))
	for _, critical := range []bool{false, true} {
		der := withCDP(t, ca, critical, relative)
		if _, err := x509.ParseCertificate(der); err == nil {
			t.Fatal("crypto/x509 reads relative names by now: ParseAnyCertificate may go")
		}
		cert, err := pkix.ParseAnyCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		if err := cert.CheckSignatureFrom(ca.Cert); err != nil || !bytes.Equal(cert.Raw, der) || cert.Subject.CommonName != "leaf" {
			t.Errorf("critical %v: %v", critical, err)
		}
		i := slices.IndexFunc(cert.Extensions, func(e x509pkix.Extension) bool { return e.Id.String() == "2.5.29.31" })
		if i < 0 || !bytes.Equal(cert.Extensions[i].Value, relative) || cert.Extensions[i].Critical != critical ||
			len(cert.UnhandledCriticalExtensions) > 0 || !slices.Equal(cert.CRLDistributionPoints, []string{"http://a", "ldap://b"}) {
			t.Errorf("critical %v: %+v, %v, %v", critical, cert.Extensions, cert.UnhandledCriticalExtensions, cert.CRLDistributionPoints)
		}
		chains, err := cert.Verify(x509.VerifyOptions{Roots: ca.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
		if err != nil || len(chains) != 1 {
			t.Errorf("critical %v: %v", critical, err)
		}
	}
	// An issuer alone, which crypto/x509 reads too.
	alone, err := pkix.ParseAnyCertificate(withCDP(t, ca, false, tlv(0x30, tlv(0x30, crlIssuer(directory("x"))))))
	if err != nil || len(alone.CRLDistributionPoints) != 0 {
		t.Error(err)
	}
	good := withCDP(t, ca, false, relative)
	other := x509pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 127}, Value: []byte{5, 0}}
	again := x509pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 31}, Value: relative}
	badConstraints := x509pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Value: []byte{4}}
	for name, tt := range map[string]brokenCRL{
		"empty":        {nil, "malformed certificate"},
		"cut":          {good[:len(good)-1], "malformed certificate"},
		"tail":         {append(slices.Clone(good), 0), "certificate: x509"},
		"huge":         {make([]byte, pkix.MaxCertificateBytes+1), "at most 131072"},
		"broken point": {withCDP(t, ca, false, tlv(0x30, tlv(0x30, pointName(tlv(0xa2))))), "the name of the distribution point"},
		"2.5.29.127":   {withCDP(t, ca, false, relative, other), "invalid CRL distribution point"},
		"another":      {withCDP(t, ca, false, relative, badConstraints), "certificate: x509"},
		"twice":        {bytesTwice(t, ca, relative, again), "certificate: x509"},
	} {
		_, err := pkix.ParseAnyCertificate(tt.der)
		t.Run(name, func(t *testing.T) { wantError(t, err, tt.want) })
	}
	for name, b := range brokenPoints() { // crypto/x509 takes some of these; then they are an error where they are looked at
		cert, err := pkix.ParseAnyCertificate(withCDP(t, ca, false, b.der))
		if err == nil {
			_, _, err = pkix.CertificateDistributionPoints(cert)
		}
		if err == nil {
			t.Errorf("%s is read", name)
		}
	}
}

// bytesTwice is a certificate with an extension twice, which crypto/x509 would not write: the second is made from a
// 2.5.29.127.
func bytesTwice(t *testing.T, ca *testpki.CA, value []byte, again x509pkix.Extension) []byte {
	t.Helper()
	again.Id = asn1.ObjectIdentifier{2, 5, 29, 127}
	der := withCDP(t, ca, false, value, again)
	i := bytes.Index(der, []byte{0x06, 3, 0x55, 0x1d, 127})
	der[i+4] = 31
	return der
}

// TestInvariant13CRLBudget: 64 MiB of nonsense are refused at once.
func TestInvariant13CRLBudget(t *testing.T) {
	const size = 64 << 20
	for _, filler := range []string{"0", "-----BEGIN X509 CRL-----\n", "-----END X509 CRL-----\n", "\x30\x84\x00", "\x30\x80", "\x30\x82\xff\xff", "\xa4\x03"} {
		raw := bytes.Repeat([]byte(filler), size/len(filler))
		wrapped := tlv(0x30, tlv(0x30, raw[:8<<20]), ed25519Algorithm(), tlv(0x03, []byte{0, 1}))
		extension := x509pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 31}, Value: tlv(0x30, raw[:8<<20])}
		for name, parse := range map[string]func() error{
			"CRL":    func() error { _, err := pkix.ParseCRLHeader(raw); return err },
			"inside": func() error { _, err := pkix.ParseCRLHeader(wrapped); return err },
			"points": func() error {
				_, _, err := pkix.CertificateDistributionPoints(&x509.Certificate{Extensions: []x509pkix.Extension{extension}})
				return err
			},
			"certificate": func() error { _, err := pkix.ParseAnyCertificate(raw); return err },
			"PEM or DER": func() error {
				der, err := pkix.ParsePEMOrDERCRL(raw)
				if err == nil {
					_, err = pkix.ParseCRLHeader(der)
				}
				return err
			},
			"entries": func() error {
				c, err := pkix.ParseCRLHeader(edited(func(p *crlParts) { p.entries = raw[:8<<20] }))
				if err == nil {
					err = c.Walk(func(pkix.CRLRecord) error { return nil })
				}
				return err
			},
		} {
			begin := time.Now()
			err := parse()
			if err == nil || len(err.Error()) > 1000 {
				t.Errorf("%s of %q: %v", name, filler, err)
			}
			if took := time.Since(begin); took > 2*time.Second && !raceEnabled {
				t.Errorf("%s of %q took %v", name, filler, took)
			}
		}
	}
}

func FuzzDistributionPoints(f *testing.F) {
	for _, b := range brokenPoints() {
		f.Add(b.der)
	}
	f.Add(tlv(0x30, tlv(0x30, pointName(tlv(0xa1, testRDN("x"))), tlv(0x81, []byte{7, 0x40, 0x80}), crlIssuer(directory("y")))))
	f.Fuzz(func(t *testing.T, value []byte) {
		cert := &x509.Certificate{RawSubject: testName("x"), Extensions: []x509pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 31}, Value: value}}}
		cdp, _, err := pkix.CertificateDistributionPoints(cert)
		if (err == nil) != (len(cdp) > 0) || len(cdp) > pkix.MaxDistributionPoints {
			t.Fatalf("%d points, %v", len(cdp), err)
		}
		for _, d := range cdp {
			if len(d.FullName) == 0 && d.Relative == nil && len(d.CRLIssuer) == 0 || len(d.FullName) > pkix.MaxGeneralNames || d.Reasons&^pkix.AllReasons != 0 {
				t.Fatalf("%+v", d)
			}
			for _, n := range d.FullName {
				if !bytes.Contains(value, n.Raw) || n.Name != nil && !bytes.Contains(n.Raw, n.Name) {
					t.Fatalf("%+v", n)
				}
			}
			if d.Relative != nil && pkix.DNString(pkix.AppendRDN(cert.RawSubject, d.Relative)) == "" {
				t.Fatalf("%x makes no name", d.Relative)
			}
		}
	})
}

func FuzzParseAnyCertificate(f *testing.F) {
	ca := testpki.NewCA(f)
	f.Add(ca.Cert.Raw)
	for _, b := range brokenPoints() {
		f.Add(withCDP(f, ca, true, b.der))
	}
	f.Add(withCDP(f, ca, true, tlv(0x30, tlv(0x30, pointName(tlv(0xa1, testRDN("x")))))))
	f.Fuzz(func(t *testing.T, der []byte) {
		cert, err := pkix.ParseAnyCertificate(der)
		theirs, refusal := x509.ParseCertificate(der)
		switch {
		case refusal == nil && (err != nil || !cert.Equal(theirs)):
			t.Fatalf("crypto/x509 reads it, we do not: %v", err)
		case err == nil && (!bytes.Equal(cert.Raw, der) || !bytes.Contains(der, cert.RawTBSCertificate)):
			t.Fatal("not the original")
		case err == nil && refusal != nil:
			if cdp, _, err := pkix.CertificateDistributionPoints(cert); err != nil || len(cdp) == 0 {
				t.Fatalf("%v for other reasons than distribution points: %v", refusal, err)
			}
		}
	})
}
