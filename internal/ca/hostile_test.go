package ca_test

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
)

// rawCSR signs a request whose subject and attributes are the caller's octets, which no library would write.
func rawCSR(t *testing.T, key crypto.Signer, subject []byte, attributes ...[]byte) []byte {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(0)
		b.AddBytes(subject)
		b.AddBytes(spki)
		b.AddASN1(cbasn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
			for _, a := range attributes {
				b.AddBytes(a)
			}
		})
	})
	tbs := b.BytesOrPanic()
	sum := sha256.Sum256(tbs)
	signature, err := key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	var out cryptobyte.Builder
	out.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(tbs)
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2})
		})
		b.AddASN1BitString(signature)
	})
	return pkix.EncodeCSR(out.BytesOrPanic())
}

// attribute is a PKCS#10 attribute with its values.
func attribute(id asn1.ObjectIdentifier, values ...[]byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(id)
		b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) {
			for _, v := range values {
				b.AddBytes(v)
			}
		})
	})
	return b.BytesOrPanic()
}

// extensions is the value of an extensionRequest with one extension.
func extensions(id asn1.ObjectIdentifier, value []byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(id)
			b.AddASN1OctetString(value)
		})
	})
	return b.BytesOrPanic()
}

// name is a Name of one attribute.
func name(id asn1.ObjectIdentifier, tag cbasn1.Tag, value string) []byte {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(id)
				b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes([]byte(value)) })
			})
		})
	})
	return b.BytesOrPanic()
}

// TestHostileRequests: what crypto/x509 passes over in a request is refused, not ignored (invariant 15), and nothing that
// a reader may take for something else gets into a certificate.
func TestHostileRequests(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	key := newKey(t, pkix.ECDSAP256)
	cn, extensionRequest := asn1.ObjectIdentifier{2, 5, 4, 3}, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 14}
	san, basic := asn1.ObjectIdentifier{2, 5, 29, 17}, asn1.ObjectIdentifier{2, 5, 29, 19}
	x := name(cn, cbasn1.UTF8String, "x")
	noCA := extensions(basic, []byte{0x30, 0})
	for _, c := range []struct {
		name, text string // text "": accepted
		pem        []byte
	}{
		{"plain", "", rawCSR(t, key, x)},
		{"with extensions", "", rawCSR(t, key, x, attribute(extensionRequest, noCA))},
		{"challenge password", "", rawCSR(t, key, x, attribute(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 7}, []byte("\x0c\x01p")))},
		{"extensions as a second value", "extensions", rawCSR(t, key, x, attribute(extensionRequest, noCA, noCA))},
		{"extensions in a second attribute", "extensions", rawCSR(t, key, x, attribute(extensionRequest, noCA), attribute(extensionRequest, extensions(san, []byte{0x30, 0})))},
		{"extensions that are none", "certificate request", rawCSR(t, key, x, attribute(extensionRequest, []byte("\x04\x01x")))},
		{"Microsoft's extensions", "1.3.6.1.4.1.311.2.1.14", rawCSR(t, key, x, attribute(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 14}, noCA))},
		{"name of universal class", "subjectAltName", rawCSR(t, key, x, attribute(extensionRequest, extensions(san, []byte("\x30\x03\x02\x01a"))))},
		{"name constructed", "subjectAltName", rawCSR(t, key, x, attribute(extensionRequest, extensions(san, []byte("\x30\x05\xa2\x03\x16\x01a"))))},
		{"host with NUL", "host name", rawCSR(t, key, x, attribute(extensionRequest, extensions(san, []byte("\x30\x05\x82\x03a\x00b"))))},
		{"empty RDN", "subject", rawCSR(t, key, []byte{0x30, 2, 0x31, 0})},
		{"empty common name", "subject", rawCSR(t, key, name(cn, cbasn1.UTF8String, ""))},
		{"NUL in the common name", "subject", rawCSR(t, key, name(cn, cbasn1.UTF8String, "admin\x00.example"))},
		{"line break in the common name", "subject", rawCSR(t, key, name(cn, cbasn1.UTF8String, "a\nb"))},
		{"NUL in BMPString", "subject", rawCSR(t, key, name(cn, 30, "\x00a\x00\x00\x00b"))},
		{"common name no UTF-8", "UTF-8", rawCSR(t, key, name(cn, cbasn1.UTF8String, "a\xff"))},
		{"common name a number", "subject", rawCSR(t, key, name(cn, cbasn1.INTEGER, "\x01"))},
		{"BMPString", "e_subject_dn_not_printable_characters", rawCSR(t, key, name(cn, 30, "\x00a"))},
		{"T61String", "", rawCSR(t, key, name(cn, cbasn1.T61String, "a"))},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := f.Issue(t.Context(), ca.IssueRequest{Profile: ca.ProfileClient, ValidDays: 1, CSR: c.pem})
			switch {
			case c.text == "" && err != nil:
				t.Error(err)
			case c.text != "" && (!errors.Is(err, ca.ErrInvalid) || !strings.Contains(err.Error(), c.text)):
				t.Errorf("error %v, want a refusal with %q", err, c.text)
			default:
				t.Log(err)
			}
		})
	}
}

// TestInvariant13Leaf: subjects and names of absurd length make no certificate.
func TestInvariant13Leaf(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	key := newKey(t, pkix.ECDSAP256)
	for what, req := range map[string]ca.IssueRequest{
		"URI":     {PublicKey: key.Public(), URIs: []string{"spiffe://example.com/" + strings.Repeat("a", 500_000)}},
		"subject": {CSR: rawCSR(t, key, name(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}, cbasn1.UTF8String, strings.Repeat("a", 40_000)))},
	} {
		req.Profile, req.ValidDays = ca.ProfileClient, 1
		if _, err := f.Issue(t.Context(), req); !errors.Is(err, ca.ErrInvalid) || !strings.Contains(err.Error(), "at most 16384") {
			t.Errorf("%s: %v, want a refusal", what, err)
		}
	}
}

// TestInvariant13Names: a list of names is refused at its 101st, however long it is.
func TestInvariant13Names(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	req := ca.IssueRequest{Profile: ca.ProfileClient, ValidDays: 1, PublicKey: newKey(t, pkix.ECDSAP256).Public()}
	for i := range 100 {
		req.DNSNames = append(req.DNSNames, fmt.Sprintf("n%d.example", i))
	}
	req.DNSNames = append(req.DNSNames, req.DNSNames...) // doubles do not count
	if _, err := f.Issue(t.Context(), req); err != nil {
		t.Error(err)
	}
	many := req
	for i := range 200_000 {
		many.DNSNames = append(many.DNSNames, fmt.Sprintf("m%d", i))
	}
	addresses := req
	for i := range 200_000 {
		addresses.IPAddresses = append(addresses.IPAddresses, netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
	}
	for _, r := range []ca.IssueRequest{many, addresses} {
		start := time.Now()
		if _, err := f.Issue(t.Context(), r); !errors.Is(err, ca.ErrInvalid) || !strings.Contains(err.Error(), "at most 100") {
			t.Errorf("error %v, want a refusal", err)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("refused after %v", took)
		}
	}
}
