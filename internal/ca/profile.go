package ca

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"strings"
)

// keyUsage is the KeyUsage bits, numbered as RFC 5280, Section 4.2.1.3 does.
type keyUsage uint16

const (
	digitalSignature keyUsage = 1 << iota
	nonRepudiation
	keyEncipherment
	dataEncipherment
	keyAgreement
	keyCertSign
	cRLSign
	encipherOnly
	decipherOnly
)

// String names the bits.
func (u keyUsage) String() string {
	names := []string{
		"digitalSignature", "nonRepudiation", "keyEncipherment", "dataEncipherment", "keyAgreement",
		"keyCertSign", "cRLSign", "encipherOnly", "decipherOnly",
	}
	var set []string
	for i, name := range names {
		if u&(1<<i) != 0 {
			set = append(set, name)
		}
	}
	return strings.Join(set, ", ")
}

// Names of the profiles that may be asked for.
const (
	ProfileClient = "client"
	ProfileServer = "server"
	profileOCSP   = "ocsp" // for our own OCSP signers only
)

// profile is what kind of end-entity certificate is made. It is a value; [profileFor] makes the ones there are.
type profile struct {
	name      string
	usage     x509.ExtKeyUsage
	maxDays   int  // longest life
	needsName bool // at least one subject alternative name
	hoistCN   bool // a common name that is a host name becomes a subject alternative name
	noCheck   bool // id-pkix-ocsp-nocheck instead of revocation pointers
}

// profileFor finds a profile by name; only public ones are found.
func profileFor(name string) (profile, error) {
	switch name {
	case ProfileClient:
		// Cloudflare's own bound for managed client certificates: 15 years.
		return profile{name: name, usage: x509.ExtKeyUsageClientAuth, maxDays: 5475}, nil
	case ProfileServer:
		// The longest that Apple's systems take from a private root (support.apple.com/103214): 825 days.
		return profile{name: name, usage: x509.ExtKeyUsageServerAuth, maxDays: 825, needsName: true, hoistCN: true}, nil
	}
	return profile{}, invalid("profile", "unknown profile %.40q; known are client and server", name)
}

// keyUsage is what the certificate's key may do. Key transport is for RSA keys of TLS servers alone: RFC 5280, Section
// 4.2.1.12 has clientAuth and OCSPSigning consistent with signatures only; RFC 8813, Section 3 bars it for ECDSA, RFC
// 8410, Section 5 for Ed25519, RFC 9881, Section 5 for ML-DSA.
func (p profile) keyUsage(pub crypto.PublicKey) keyUsage {
	if _, isRSA := pub.(*rsa.PublicKey); isRSA && p.usage == x509.ExtKeyUsageServerAuth {
		return digitalSignature | keyEncipherment
	}
	return digitalSignature
}
