package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/mldsa"
	"crypto/rsa"
	"crypto/x509"
	x509pkix "crypto/x509/pkix"
	"encoding/asn1"
	"math/bits"
	"net/netip"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"sekisho/internal/pkix"
)

// applicant is who a certificate is for: a request that passed every check that needs no ledger. Only [newApplicant]
// makes one.
type applicant struct {
	pub        crypto.PublicKey
	spki       []byte // SubjectPublicKeyInfo, encoded anew: one key has one KeyID, however the request spelled it
	subject    []byte // Name in DER, as the request has it
	commonName string
	names      altNames
	csr        []byte // PEM as sent; nil without a request
}

// newApplicant checks a request against a profile.
func newApplicant(req IssueRequest, p profile) (applicant, error) {
	a := applicant{pub: req.PublicKey, subject: req.SubjectDER}
	if len(req.CSR) > 0 {
		if req.PublicKey != nil {
			return a, invalid("csr", "give a certificate request or a public key, not both")
		}
		csr, err := checkCSR(req.CSR, p)
		if err != nil {
			return a, err
		}
		a.csr, a.pub = req.CSR, csr.PublicKey
		if len(a.subject) == 0 {
			a.subject = csr.RawSubject
		}
		if err := a.addCSRNames(csr); err != nil {
			return a, err
		}
	}
	if err := a.addRequestNames(req); err != nil {
		return a, err
	}
	if err := a.finish(p); err != nil {
		return a, err
	}
	var err error
	if a.spki, err = x509.MarshalPKIXPublicKey(a.pub); err != nil {
		return a, invalid("public_key", "%v", err)
	}
	return a, nil
}

// source is the field to blame: the request, or without one the field beside it.
func (a *applicant) source(field string) string {
	if a.csr != nil {
		return "csr"
	}
	return field
}

// finish checks the key and that somebody is named.
func (a *applicant) finish(p profile) error {
	if a.pub == nil {
		return invalid("csr", "give a certificate request or a public key")
	}
	if err := checkKey(a.source("public_key"), a.pub); err != nil {
		return err
	}
	if len(a.subject) == 0 {
		a.subject = emptyName()
	}
	a.commonName = pkix.CommonName(a.subject)
	if err := a.checkSubject(); err != nil {
		return err
	}
	if p.hoistCN {
		if err := a.names.addHost(a.commonName); err != nil {
			return err
		}
	}
	switch {
	case p.needsName && a.names.empty():
		return invalid("hosts", "a certificate of profile %s needs at least one subject alternative name", p.name)
	case isEmptyName(a.subject) && a.names.empty():
		return invalid(a.source("subject"), "it has neither a subject nor a subject alternative name; name the holder, for instance with -subj /CN=name")
	}
	return nil
}

func emptyName() []byte { return []byte{0x30, 0x00} }

func isEmptyName(der []byte) bool { return len(der) == 2 }

// checkSubject refuses a subject that is no Name and one with empty parts (X.520: a DirectoryString has at least one
// character), and repeats its e-mail addresses among the names: RFC 5280, Section 4.1.2.6 wants them there, and leaves
// them in the subject for those who still look there. Control characters and lengths are for the lints.
func (a *applicant) checkSubject() error {
	var name x509pkix.RDNSequence
	if rest, err := asn1.Unmarshal(a.subject, &name); err != nil || len(rest) > 0 {
		// It is copied into the certificate as it is, so it must be one Name and not a byte more.
		return invalid("subject", "it is no distinguished name in DER")
	}
	for _, rdn := range name {
		if len(rdn) == 0 {
			return invalid(a.source("subject"), "a part of its subject has no attribute")
		}
		for _, attribute := range rdn {
			text, isText := attribute.Value.(string)
			switch {
			case isText && text == "":
				return invalid(a.source("subject"), "its subject has an attribute (OID %s) without a value", attribute.Type)
			case isText && attribute.Type.Equal(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}):
				if err := a.names.addEmail(text); err != nil {
					return invalid("subject", "its emailAddress %.80q cannot be a subject alternative name: %v", text, err)
				}
			}
		}
	}
	return nil
}

// addCSRNames takes over the subject alternative names of the request.
func (a *applicant) addCSRNames(csr *x509.CertificateRequest) error {
	for _, u := range csr.URIs {
		if err := a.names.addURI(u.String()); err != nil {
			return err
		}
	}
	for _, ip := range csr.IPAddresses {
		addr, _ := netip.AddrFromSlice(ip)
		if err := a.names.addIP(addr); err != nil {
			return err
		}
	}
	return a.addTexts(csr.DNSNames, csr.EmailAddresses)
}

// addRequestNames takes over subject and names given beside the request.
func (a *applicant) addRequestNames(req IssueRequest) error {
	if req.Subject != "" {
		der, err := pkix.ParseDN(req.Subject)
		if err != nil {
			return invalid("subject", "%v", err)
		}
		a.subject = der
	}
	for _, u := range req.URIs {
		if err := a.names.addURI(u); err != nil {
			return err
		}
	}
	for _, ip := range req.IPAddresses {
		if err := a.names.addIP(ip); err != nil {
			return err
		}
	}
	return a.addTexts(req.DNSNames, req.Emails)
}

func (a *applicant) addTexts(dns, emails []string) error {
	for _, name := range dns {
		if err := a.names.addDNS(name); err != nil {
			return err
		}
	}
	for _, address := range emails {
		if err := a.names.addEmail(address); err != nil {
			return err
		}
	}
	return nil
}

// checkCSR reads a request in PEM and checks its key, then its signature (in this order: a key of absurd size is never
// computed with), then what it asks for.
func checkCSR(pem []byte, p profile) (*x509.CertificateRequest, error) {
	csr, err := pkix.ParseCSR(pem)
	if err != nil {
		return nil, invalid("csr", "%v", err)
	}
	if csr.PublicKey == nil {
		return nil, invalid("csr", "its key is of an unknown type, %s; %s", keyAlgorithmOID(csr.RawSubjectPublicKeyInfo), keyTypesText)
	}
	if err := checkKey("csr", csr.PublicKey); err != nil {
		return nil, err
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, invalid("csr", "its signature is not by the key in it, so it was changed after signing or damaged (%v)", err)
	}
	if err := checkAttributes(csr.RawTBSCertificateRequest); err != nil {
		return nil, err
	}
	for _, e := range csr.Extensions {
		if err := checkExtension(e.Id, e.Value, csr.PublicKey, p); err != nil {
			return nil, err
		}
	}
	return csr, nil
}

// checkAttributes refuses extensions in places where crypto/x509 does not look: it reads the first value of each
// extensionRequest (RFC 2985, Section 5.4.2: there is one) and passes over Microsoft's attribute of the same meaning.
// Other attributes ask for nothing.
func checkAttributes(tbs []byte) error {
	input := cryptobyte.String(tbs)
	var info, list cryptobyte.String
	if !input.ReadASN1(&info, cbasn1.SEQUENCE) || !info.SkipASN1(cbasn1.INTEGER) || !info.SkipASN1(cbasn1.SEQUENCE) ||
		!info.SkipASN1(cbasn1.SEQUENCE) || !info.ReadASN1(&list, cbasn1.Tag(0).ContextSpecific().Constructed()) {
		return invalid("csr", "its attributes cannot be read")
	}
	found := false
	for !list.Empty() {
		var attribute, values cryptobyte.String
		var id asn1.ObjectIdentifier
		if !list.ReadASN1(&attribute, cbasn1.SEQUENCE) || !attribute.ReadASN1ObjectIdentifier(&id) ||
			!attribute.ReadASN1(&values, cbasn1.SET) || !attribute.Empty() {
			return invalid("csr", "its attributes cannot be read")
		}
		switch {
		case id.Equal(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 14}):
			return invalid("csr", "it asks for extensions in Microsoft's attribute %s; write them as extensionRequest", id)
		case !id.Equal(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 14}):
		case found || !values.SkipASN1(cbasn1.SEQUENCE) || !values.Empty():
			return invalid("csr", "it asks for extensions more than once; there is one extensionRequest with one value")
		default:
			found = true
		}
	}
	return nil
}

const keyTypesText = "accepted are RSA (2048 to 8192 bits), ECDSA (P-256, P-384, P-521), Ed25519 and ML-DSA (44, 65, 87)"

// checkKey refuses keys that are weak, absurd or not of an accepted type; field says where the key came from.
func checkKey(field string, pub crypto.PublicKey) error {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		switch size := k.N.BitLen(); {
		case size < 2048:
			return invalid(field, "the RSA key has %d bits; at least 2048 are needed", size)
		case size > 8192:
			return invalid(field, "the RSA key has %d bits; at most 8192 are accepted", size)
		case k.E < 65537 || k.E%2 == 0: // NIST SP 800-89, Section 5.3.3
			return invalid(field, "the RSA key has the public exponent %d; odd ones from 65537 are accepted", k.E)
		case k.N.Bit(0) == 0:
			return invalid(field, "the RSA key has an even modulus, so it is no RSA key")
		}
		return nil
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			return nil
		}
	case ed25519.PublicKey, *mldsa.PublicKey:
		return nil
	}
	return invalid(field, "the key is of type %s; %s", pkix.KeyTypeOf(pub), keyTypesText)
}

// keyAlgorithmOID is the dotted algorithm of a SubjectPublicKeyInfo.
func keyAlgorithmOID(spki []byte) string {
	input := cryptobyte.String(spki)
	var info, alg cryptobyte.String
	var id asn1.ObjectIdentifier
	if !input.ReadASN1(&info, cbasn1.SEQUENCE) || !info.ReadASN1(&alg, cbasn1.SEQUENCE) || !alg.ReadASN1ObjectIdentifier(&id) {
		return "which cannot be read"
	}
	return "OID " + id.String()
}

// checkExtension judges one extension that a request asks for: what the profile gives anyway passes, names are taken
// over elsewhere, all else is refused. Nothing is silently ignored.
func checkExtension(id asn1.ObjectIdentifier, value []byte, pub crypto.PublicKey, p profile) error {
	switch {
	case id.Equal(oid(17)):
		return checkAltNames(value)
	case id.Equal(oid(19)):
		return checkBasicConstraints(value)
	case id.Equal(oid(15)):
		return checkKeyUsage(value, p.keyUsage(pub), p.name)
	case id.Equal(oid(37)):
		return checkExtKeyUsage(value, p)
	case id.Equal(oid(14)): // a hint; ours is a hash of the key and names the same key
		return nil
	}
	return invalid("csr", "it asks for the extension %s, which this CA does not put into certificates; "+
		"make the request without it (basicConstraints, keyUsage, extendedKeyUsage, subjectAltName and subjectKeyIdentifier may stay)", id)
}

// checkAltNames refuses the kinds of names that crypto/x509 would skip. What has the number of a kind that it reads, but
// is of another class or constructed, it skips as well.
func checkAltNames(value []byte) error {
	input := cryptobyte.String(value)
	var list cryptobyte.String
	if !input.ReadASN1(&list, cbasn1.SEQUENCE) || !input.Empty() {
		return invalid("csr", "its subjectAltName cannot be read")
	}
	kinds := []string{"otherName", "", "", "x400Address", "directoryName", "ediPartyName", "", "", "registeredID"}
	for !list.Empty() {
		var name cryptobyte.String
		var tag cbasn1.Tag
		if !list.ReadAnyASN1(&name, &tag) {
			return invalid("csr", "its subjectAltName cannot be read")
		}
		if kind := int(tag & 0x1f); kind >= len(kinds) || kinds[kind] != "" {
			what := "an unknown kind"
			if kind < len(kinds) {
				what = kinds[kind]
			}
			return invalid("csr", "its subjectAltName has a name of kind %s; host names, addresses, e-mail addresses and URIs are accepted", what)
		} else if tag != cbasn1.Tag(kind).ContextSpecific() {
			return invalid("csr", "its subjectAltName has a name whose tag %#x is that of no kind", uint8(tag))
		}
	}
	return nil
}

func checkBasicConstraints(value []byte) error {
	input := cryptobyte.String(value)
	var list cryptobyte.String
	var isCA bool // DEFAULT FALSE; some write it
	if !input.ReadASN1(&list, cbasn1.SEQUENCE) || !input.Empty() ||
		list.PeekASN1Tag(cbasn1.BOOLEAN) && !list.ReadASN1Boolean(&isCA) {
		return invalid("csr", "its basicConstraints cannot be read")
	}
	if isCA || !list.Empty() {
		return invalid("csr", "it asks to become a CA (basicConstraints CA:TRUE); this CA signs end-entity certificates only")
	}
	return nil
}

func checkKeyUsage(value []byte, given keyUsage, profileName string) error {
	input := cryptobyte.String(value)
	var set asn1.BitString
	if !input.ReadASN1BitString(&set) || !input.Empty() || len(set.Bytes) > 2 {
		return invalid("csr", "its keyUsage cannot be read")
	}
	var asked keyUsage
	for i := range set.BitLength {
		asked |= keyUsage(set.At(i)) << i
	}
	if over := asked &^ given; over != 0 {
		if bits.Len16(uint16(over)) > 9 {
			return invalid("csr", "its keyUsage has unknown bits")
		}
		return invalid("csr", "it asks for the key usage %s; profile %s gives %s for this key. Make the request without keyUsage", over, profileName, given)
	}
	return nil
}

func checkExtKeyUsage(value []byte, p profile) error {
	input := cryptobyte.String(value)
	var list cryptobyte.String
	if !input.ReadASN1(&list, cbasn1.SEQUENCE) || !input.Empty() {
		return invalid("csr", "its extendedKeyUsage cannot be read")
	}
	for !list.Empty() {
		var id asn1.ObjectIdentifier
		if !list.ReadASN1ObjectIdentifier(&id) {
			return invalid("csr", "its extendedKeyUsage cannot be read")
		}
		if usage, known := usageOf(id); !known || usage != p.usage {
			name := id.String()
			if known {
				name = usage.String()
			}
			return invalid("csr", "it asks for the extended key usage %s; profile %s gives %s. Make the request without it or choose another profile",
				name, p.name, p.usage)
		}
	}
	return nil
}

// usageOf is the extended key usage of an OID.
func usageOf(id asn1.ObjectIdentifier) (x509.ExtKeyUsage, bool) {
	if id.Equal(oid(37, 0)) {
		return x509.ExtKeyUsageAny, true
	}
	kp := asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3}
	if len(id) != len(kp)+1 || !id[:len(kp)].Equal(kp) {
		return 0, false
	}
	usage, known := map[int]x509.ExtKeyUsage{
		1: x509.ExtKeyUsageServerAuth, 2: x509.ExtKeyUsageClientAuth, 3: x509.ExtKeyUsageCodeSigning,
		4: x509.ExtKeyUsageEmailProtection, 8: x509.ExtKeyUsageTimeStamping, 9: x509.ExtKeyUsageOCSPSigning,
	}[id[len(kp)]]
	return usage, known
}
