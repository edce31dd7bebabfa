package pkix

import (
	"crypto/x509"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte/asn1"
)

// attribute is a kind of attribute in a distinguished name.
type attribute struct {
	oid   string // dotted
	short string // OpenSSL's short name, used in text
	long  string // OpenSSL's long name
	max   int    // X.520's upper bound in characters; 0: maxDNText is bound enough
	form  dnForm
}

type dnForm int

const (
	formUTF8 dnForm = iota
	formPrintable
	formCountry
	formIA5
	formOther // no text; written as #hex only
)

// attributeFor and attributeNamed search this table; it is never written. The
// names are OpenSSL 3.0's; the bounds X.520's (RFC 5280, Appendix A.1).
var attributes = [...]attribute{
	{"2.5.4.3", "CN", "commonName", 64, formUTF8},
	{"2.5.4.10", "O", "organizationName", 64, formUTF8},
	{"2.5.4.11", "OU", "organizationalUnitName", 64, formUTF8},
	{"2.5.4.6", "C", "countryName", 2, formCountry},
	{"2.5.4.8", "ST", "stateOrProvinceName", 128, formUTF8},
	{"2.5.4.7", "L", "localityName", 128, formUTF8},
	{"1.2.840.113549.1.9.1", "emailAddress", "emailAddress", 255, formIA5},
	{"0.9.2342.19200300.100.1.25", "DC", "domainComponent", 63, formIA5},
	{"0.9.2342.19200300.100.1.1", "UID", "userId", 256, formUTF8},
	{"2.5.4.9", "street", "streetAddress", 128, formUTF8},
	{"2.5.4.5", "serialNumber", "serialNumber", 64, formPrintable},
	{"2.5.4.4", "SN", "surname", 0, formUTF8},
	{"2.5.4.42", "GN", "givenName", 0, formUTF8},
	{"2.5.4.12", "title", "title", 64, formUTF8},
	{"2.5.4.43", "initials", "initials", 0, formUTF8},
	{"2.5.4.44", "generationQualifier", "generationQualifier", 0, formUTF8},
	{"2.5.4.41", "name", "name", 0, formUTF8},
	{"2.5.4.46", "dnQualifier", "dnQualifier", 64, formPrintable},
	{"2.5.4.65", "pseudonym", "pseudonym", 128, formUTF8},
	{"2.5.4.13", "description", "description", 1024, formUTF8},
	{"2.5.4.15", "businessCategory", "businessCategory", 128, formUTF8},
	{"2.5.4.17", "postalCode", "postalCode", 40, formUTF8},
	{"2.5.4.18", "postOfficeBox", "postOfficeBox", 40, formUTF8},
	{"2.5.4.20", "telephoneNumber", "telephoneNumber", 32, formPrintable},
	{"2.5.4.97", "organizationIdentifier", "organizationIdentifier", 256, formUTF8},
	{"1.3.6.1.4.1.311.60.2.1.1", "jurisdictionL", "jurisdictionLocalityName", 128, formUTF8},
	{"1.3.6.1.4.1.311.60.2.1.2", "jurisdictionST", "jurisdictionStateOrProvinceName", 128, formUTF8},
	{"1.3.6.1.4.1.311.60.2.1.3", "jurisdictionC", "jurisdictionCountryName", 2, formCountry},
	{"1.2.840.113549.1.9.2", "unstructuredName", "unstructuredName", 255, formUTF8},
	{"1.2.840.113549.1.9.8", "unstructuredAddress", "unstructuredAddress", 255, formUTF8},
	{"0.9.2342.19200300.100.1.3", "mail", "rfc822Mailbox", 256, formIA5},
	{"0.9.2342.19200300.100.1.9", "host", "host", 256, formUTF8},
	{"2.5.4.72", "role", "role", 0, formUTF8},
	{"2.5.4.51", "houseIdentifier", "houseIdentifier", 0, formUTF8},
	{"2.5.4.16", "postalAddress", "postalAddress", 0, formOther},
	{"2.5.4.45", "x500UniqueIdentifier", "x500UniqueIdentifier", 0, formOther},
	{"0.9.2342.19200300.100.1.44", "uid", "uniqueIdentifier", 0, formOther},
	{"1.2.643.3.131.1.1", "INN", "INN", 12, formUTF8},
	{"1.2.643.100.1", "OGRN", "OGRN", 13, formUTF8},
	{"1.2.643.100.3", "SNILS", "SNILS", 11, formUTF8},
}

// attributeFor is the attribute with the dotted OID; ok is false and only oid
// is set where the table has none.
func attributeFor(oid string) (attr attribute, ok bool) {
	for i := range attributes {
		if attributes[i].oid == oid {
			return attributes[i], true
		}
	}
	return attribute{oid: oid}, false
}

// attributeNamed finds an attribute by short name, long name or dotted OID.
// An exact spelling wins over one in another case: UID is userId, uid is
// uniqueIdentifier. E is what Windows writes for emailAddress.
func attributeNamed(name string) (attribute, error) {
	for _, attr := range attributes {
		if name == attr.short {
			return attr, nil
		}
	}
	for _, attr := range attributes {
		if strings.EqualFold(name, attr.short) || strings.EqualFold(name, attr.long) {
			return attr, nil
		}
	}
	switch {
	case strings.EqualFold(name, "E"), strings.EqualFold(name, "email"):
		return attributeNamed("emailAddress")
	case len(name) > 4 && strings.EqualFold(name[:4], "OID."): // RFC 1779's spelling
		name = name[4:]
	}
	if name != "" && '0' <= name[0] && name[0] <= '9' {
		oid, err := x509.ParseOID(name)
		if err != nil || len(name) > 128 {
			return attribute{}, fmt.Errorf("%.60q is not an object identifier", name)
		}
		attr, _ := attributeFor(oid.String())
		return attr, nil
	}
	return attribute{}, fmt.Errorf("unknown attribute %.60q; known are CN, O, OU, C, ST, L, STREET, DC, UID, emailAddress, "+
		"serialNumber, SN, GN, title and their long names; others as a dotted OID", name)
}

// name is how text calls the attribute.
func (a attribute) name() string {
	if a.short == "" {
		return a.oid
	}
	return a.short
}

// tag is the string type that a new value of the attribute is written in.
func (a attribute) tag() asn1.Tag {
	switch a.form {
	case formPrintable, formCountry:
		return asn1.PrintableString
	case formIA5:
		return asn1.IA5String
	}
	return asn1.UTF8String
}

// check reports what is wrong with text as a value of the attribute.
func (a attribute) check(text string) error {
	switch {
	case text == "":
		return fmt.Errorf("%s has no value", a.name())
	case !utf8.ValidString(text):
		return fmt.Errorf("%s is not UTF-8 text", a.name())
	case strings.ContainsFunc(text, func(r rune) bool { return r < 0x20 || r == 0x7f }):
		return fmt.Errorf("%s contains a control character", a.name())
	case a.form == formCountry && !isCountry(text):
		return fmt.Errorf("%s is %.40q; a country is two letters, for instance JP", a.name(), text)
	case a.max > 0 && utf8.RuneCountInString(text) > a.max:
		return fmt.Errorf("%s has %d characters; X.520 allows %d", a.name(), utf8.RuneCountInString(text), a.max)
	case a.form == formIA5 && strings.ContainsFunc(text, func(r rune) bool { return r > 0x7f }):
		return fmt.Errorf("%s is %.60q; only ASCII is allowed here (write the domain in its xn-- form)", a.name(), text)
	case a.form == formPrintable && strings.ContainsFunc(text, notPrintable):
		return fmt.Errorf("%s is %.60q; only letters, digits, blanks and '()+,-./:=? are allowed here", a.name(), text)
	case a.form == formOther:
		return fmt.Errorf("%s is not a text attribute; write its DER as #hex", a.name())
	}
	return nil
}

func isCountry(text string) bool {
	return len(text) == 2 && isLetter(text[0]) && isLetter(text[1])
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

// notPrintable reports whether r is outside PrintableString (X.680, 41.4).
func notPrintable(r rune) bool {
	return r > 0x7f || !isLetter(byte(r)) && !('0' <= r && r <= '9') && !strings.ContainsRune(" '()+,-./:=?", r)
}
