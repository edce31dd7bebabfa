package pkix

import (
	"crypto/x509"
	x509pkix "crypto/x509/pkix"
	"encoding/asn1"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// OCSPNoCheck is the extension id-pkix-ocsp-nocheck for a delegated OCSP
// responder's certificate: its own revocation is not to be asked for
// (RFC 6960, Section 4.2.2.2.1). The value is NULL.
func OCSPNoCheck() x509pkix.Extension {
	return x509pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}, Value: []byte{0x05, 0x00}}
}

// oidText is an object identifier in dots, from its content octets; in
// hexadecimal if it is none, or long.
func oidText(content []byte) string {
	var oid x509.OID
	if len(content) <= 64 && oid.UnmarshalBinary(content) == nil {
		return oid.String()
	}
	return fmt.Sprintf("%x", content[:min(len(content), 64)])
}

// appendHeader appends a DER tag and definite length.
func appendHeader(b []byte, tag byte, length int) []byte {
	b = append(b, tag)
	switch {
	case length < 0x80:
		return append(b, byte(length))
	case length < 0x100:
		return append(b, 0x81, byte(length))
	case length < 0x10000:
		return append(b, 0x82, byte(length>>8), byte(length))
	case length < 0x1000000:
		return append(b, 0x83, byte(length>>16), byte(length>>8), byte(length))
	}
	return append(b, 0x84, byte(length>>24), byte(length>>16), byte(length>>8), byte(length))
}

// addExtension adds one Extension whose value is what value writes. DER leaves
// out a critical flag that is false.
func addExtension(b *cryptobyte.Builder, oid asn1.ObjectIdentifier, critical bool, value cryptobyte.BuilderContinuation) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		if critical {
			b.AddASN1Boolean(true)
		}
		b.AddASN1(cbasn1.OCTET_STRING, value)
	})
}

// addFullName adds DistributionPointName's fullName with URIs and directory
// names (RFC 5280, Section 4.2.1.13), in its two context tags.
func addFullName(b *cryptobyte.Builder, uris []string, names [][]byte) {
	b.AddASN1(cbasn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
			for _, uri := range uris {
				b.AddASN1(cbasn1.Tag(6).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes([]byte(uri)) })
			}
			for _, name := range names { // Name is a CHOICE, so its tag is explicit
				b.AddASN1(contextGroup(TagDirectoryName), func(b *cryptobyte.Builder) { b.AddBytes(name) })
			}
		})
	})
}
