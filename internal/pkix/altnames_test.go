package pkix

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	x509pkix "crypto/x509/pkix"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func altNamesCertificate(tb testing.TB, t x509.Certificate) []byte {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	t.SerialNumber, t.NotBefore, t.NotAfter = big.NewInt(7), time.Unix(0, 0), time.Unix(1<<31, 0)
	t.Subject = x509pkix.Name{CommonName: "names"}
	der, err := x509.CreateCertificate(rand.Reader, &t, &t, key.Public(), key)
	if err != nil {
		tb.Fatal(err)
	}
	return der
}

func allAltNames(tb testing.TB) []byte {
	tb.Helper()
	uri, err := url.Parse("spiffe://example.org/ns/prod")
	if err != nil {
		tb.Fatal(err)
	}
	return altNamesCertificate(tb, x509.Certificate{
		DNSNames: []string{"api.example.com", "*.example.com"}, EmailAddresses: []string{"Ops@example.com"},
		IPAddresses: []net.IP{net.IPv4(192, 0, 2, 7), net.ParseIP("2001:db8::1")}, URIs: []*url.URL{uri},
	})
}

func TestReadAltNames(t *testing.T) {
	want := AltNames{
		DNS: []string{"api.example.com", "*.example.com"}, Emails: []string{"Ops@example.com"}, URIs: []string{"spiffe://example.org/ns/prod"},
		IPs: []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::1")},
	}
	got, err := ReadAltNames(allAltNames(t))
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
	for name, der := range map[string][]byte{"none": altNamesCertificate(t, x509.Certificate{})} {
		if got, err := ReadAltNames(der); err != nil || len(got.DNS)+len(got.Emails)+len(got.URIs)+len(got.IPs) != 0 {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	der := allAltNames(t)
	for name, bad := range map[string][]byte{"nothing": nil, "text": []byte("certificate"), "cut": der[:len(der)-1], "trailing": append(der[:len(der):len(der)], 0)} {
		if _, err := ReadAltNames(bad); err == nil {
			t.Errorf("%s is taken for a certificate", name)
		}
	}
}

// FuzzReadAltNames: where crypto/x509 takes a certificate, both read the same names.
func FuzzReadAltNames(f *testing.F) {
	f.Add(allAltNames(f))
	f.Add(altNamesCertificate(f, x509.Certificate{}))
	f.Add(altNamesCertificate(f, x509.Certificate{DNSNames: []string{"a"}, IsCA: true, BasicConstraintsValid: true}))
	f.Fuzz(func(t *testing.T, der []byte) {
		got, err := ReadAltNames(der)
		cert, parseErr := x509.ParseCertificate(der)
		if parseErr != nil {
			return
		}
		if err != nil {
			t.Fatalf("crypto/x509 takes it: %v", err)
		}
		ips := 0
		for _, ip := range cert.IPAddresses {
			if addr, ok := netip.AddrFromSlice(ip); !ok || ips >= len(got.IPs) || got.IPs[ips] != addr.Unmap() {
				t.Fatalf("addresses %v, want %v", got.IPs, cert.IPAddresses)
			}
			ips++
		}
		nonEmpty := func(all []string) (out []string) {
			for _, s := range all {
				if s != "" {
					out = append(out, s)
				}
			}
			return out
		}
		if diff := cmp.Diff(nonEmpty(cert.DNSNames), got.DNS); diff != "" {
			t.Fatal(diff)
		}
		if diff := cmp.Diff(nonEmpty(cert.EmailAddresses), got.Emails); diff != "" {
			t.Fatal(diff)
		}
	})
}
