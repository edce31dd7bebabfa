package certpath

import (
	"crypto/x509"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"sekisho/internal/pkix"
)

// tagBMPString has no name in cryptobyte.
const tagBMPString = asn1.Tag(30)

// attr is an attribute of a name for tests.
type attr struct {
	oid  string // content octets
	tag  asn1.Tag
	text string
}

const (
	cn    = "\x55\x04\x03"
	org   = "\x55\x04\x0a"
	email = "\x2a\x86\x48\x86\xf7\x0d\x01\x09\x01"
)

// dn encodes a Name of RDNs.
func dn(rdns ...[]attr) []byte {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, rdn := range rdns {
			b.AddASN1(asn1.SET, func(b *cryptobyte.Builder) {
				for _, a := range rdn {
					b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddASN1(asn1.OBJECT_IDENTIFIER, func(b *cryptobyte.Builder) { b.AddBytes([]byte(a.oid)) })
						b.AddASN1(a.tag, func(b *cryptobyte.Builder) { b.AddBytes([]byte(a.text)) })
					})
				}
			})
		}
	})
	return b.BytesOrPanic()
}

func one(oid string, tag asn1.Tag, text string) []attr { return []attr{{oid, tag, text}} }

func TestSameName(t *testing.T) {
	const u, p, ia5, bmp = asn1.UTF8String, asn1.PrintableString, asn1.IA5String, tagBMPString
	cases := []struct {
		name string
		a, b []byte
		want bool
	}{
		{"identical", dn(one(cn, u, "Iwa Te")), dn(one(cn, u, "Iwa Te")), true},
		{"another string type", dn(one(cn, u, "Iwa Te")), dn(one(cn, p, "Iwa Te")), true},
		{"another case", dn(one(cn, u, "IWA te")), dn(one(cn, p, "Iwa Te")), true},
		{"blanks", dn(one(cn, p, "  Iwa   Te ")), dn(one(cn, p, "Iwa Te")), true},
		{"blanks that count", dn(one(cn, p, "Iwa Te")), dn(one(cn, p, "IwaTe")), false},
		{"blanks alone", dn(one(cn, p, "  ")), dn(one(cn, p, "")), true},
		{"case beyond ASCII", dn(one(cn, u, "ÄÖÜ Ж")), dn(one(cn, u, "äöü ж")), true},
		{"UCS-2", dn(one(cn, bmp, "\x00I\x00w\x00a\x01\x7d")), dn(one(cn, u, "iwaž")), true},
		{"UCS-2 cut short", dn(one(cn, bmp, "\x00I\x00")), dn(one(cn, u, "i")), false},
		{"octets that are no UTF-8", dn(one(cn, u, "a\xff")), dn(one(cn, u, "a\xfe")), false},
		{"domain component", dn(one(cn, ia5, "Example")), dn(one(cn, ia5, "example")), true},
		{"other text", dn(one(cn, u, "a")), dn(one(cn, u, "b")), false},
		{"prefix of the text", dn(one(cn, u, "a")), dn(one(cn, u, "ab")), false},
		{"other attribute", dn(one(cn, u, "a")), dn(one(org, u, "a")), false},
		{"other order", dn(one(cn, u, "a"), one(org, u, "b")), dn(one(org, u, "b"), one(cn, u, "a")), false},
		{"fewer", dn(one(cn, u, "a"), one(org, u, "b")), dn(one(cn, u, "a")), false},
		{"order inside an RDN", dn([]attr{{cn, u, "a"}, {org, u, "b"}}), dn([]attr{{org, p, "B"}, {cn, p, "A"}}), true},
		{"twice the same inside an RDN", dn([]attr{{cn, u, "a"}, {cn, u, "a"}}), dn([]attr{{cn, u, "a"}, {cn, u, "b"}}), false},
		{"one RDN and two", dn([]attr{{cn, u, "a"}, {org, u, "b"}}), dn(one(cn, u, "a"), one(org, u, "b")), false},
		{"not text", dn(one(cn, asn1.OCTET_STRING, "a")), dn(one(cn, asn1.OCTET_STRING, "A")), false},
		{"empty", dn(), dn(), true},
		{"empty and not", dn(), dn(one(cn, u, "a")), false},
		{"no name", []byte{5, 0}, dn(), false},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			if pkix.SameName(tc.a, tc.b) != tc.want || pkix.SameName(tc.b, tc.a) != tc.want {
				t.Errorf("want %v", tc.want)
			}
			if allocs := testing.AllocsPerRun(10, func() { pkix.SameName(tc.a, tc.b) }); allocs > 0 {
				t.Errorf("%v allocations", allocs)
			}
		})
	}
}

func FuzzSameName(f *testing.F) {
	f.Add(dn(one(cn, asn1.UTF8String, "Iwa Te")), dn(one(cn, asn1.PrintableString, " IWA  te ")))
	f.Add(dn([]attr{{cn, asn1.UTF8String, "a"}, {org, tagBMPString, "\x00b"}}), []byte{0x30, 0})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		same := pkix.SameName(a, b)
		if same != pkix.SameName(b, a) {
			t.Error("not symmetric")
		}
		if same && len(a) > 1 && a[0] == 0x30 && len(b) > 1 && b[0] == 0x30 && !pkix.WithinName(a, b) && pkix.WithinName(a, a) {
			t.Error("the same name is not within itself")
		}
	})
}

// general encodes a GeneralName. Directory names and otherName are constructed.
func general(form int, content string) []byte {
	tag := asn1.Tag(form).ContextSpecific()
	if form == formOther || form == formDirectory || form == 3 || form == 5 {
		tag = tag.Constructed()
	}
	var b cryptobyte.Builder
	b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes([]byte(content)) })
	return b.BytesOrPanic()
}

func generals(names ...[]byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, n := range names {
			b.AddBytes(n)
		}
	})
	return b.BytesOrPanic()
}

// subtreesOf encodes NameConstraints.
func subtreesOf(permitted, excluded [][]byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for tag, list := range [][][]byte{permitted, excluded} {
			if len(list) == 0 {
				continue
			}
			b.AddASN1(asn1.Tag(tag).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
				for _, base := range list {
					b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(base) })
				}
			})
		}
	})
	return b.BytesOrPanic()
}

const smtpUTF8 = "\x06\x08\x2b\x06\x01\x05\x05\x07\x08\x09\xa0\x05\x0c\x03a@b"

// withinCases say for a base whether a name is in its subtree: as permitted base, "yes" lets the name pass; as excluded
// base, "no" does. "never" is a name that passes neither.
var withinCases = []struct {
	form       int
	base, name string
	want       string
}{
	{formDNS, "example.com", "example.com", "yes"},
	{formDNS, "example.com", "a.example.com", "yes"},
	{formDNS, "EXAMPLE.com", "a.b.Example.COM", "yes"},
	{formDNS, "example.com", "a.example.com.", "yes"},
	{formDNS, "example.com", "*.example.com", "yes"},
	{formDNS, "example.com", "aexample.com", "no"},
	{formDNS, "example.com", "com", "no"},
	{formDNS, "example.com", "example.com.evil", "no"},
	{formDNS, "", "anything", "yes"},
	{formDNS, ".example.com", "a.example.com", "yes"},
	{formDNS, ".example.com", "example.com", "no"},
	{formDNS, "a.example.com", "*.example.com", "never"},
	{formDNS, "a.b.example.com", "*.example.com", "no"},
	{formDNS, "a.example.com", "*.b.example.com", "no"},
	{formDNS, "example.com", "a..example.com", "never"},
	{formDNS, "example.com", "a*.example.com", "never"},
	{formDNS, "example.com", "a.*.example.com", "never"},
	{formDNS, "example.com", "evil.com\x00.example.com", "never"},
	{formDNS, "example.com", "", "never"},
	{formDNS, "example.com", strings.Repeat("a", 64) + ".example.com", "never"},
	{formEmail, "example.com", "a@example.com", "yes"},
	{formEmail, "example.com", "a@EXAMPLE.com", "yes"},
	{formEmail, "example.com", "a@b.example.com", "no"},
	{formEmail, ".example.com", "a@b.example.com", "yes"},
	{formEmail, ".example.com", "a@example.com", "no"},
	{formEmail, "a@example.com", "a@example.com", "yes"},
	{formEmail, "a@example.com", "a@Example.com", "yes"},
	{formEmail, "a@example.com", "A@example.com", "no"},
	{formEmail, "a@example.com", `"a"@example.com`, "yes"},
	{formEmail, "a@example.com", `"\a"@example.com`, "yes"},
	{formEmail, "example.com", `"a@evil"@example.com`, "yes"},
	{formEmail, "example.com", `a@evil@example.com`, "never"},
	{formEmail, "example.com", `"a@example.com`, "never"},
	{formEmail, "example.com", `"a"b@example.com`, "never"},
	{formEmail, "example.com", "example.com", "never"},
	{formEmail, "example.com", "a@[127.0.0.1]", "never"},
	{formEmail, "", "a@example.com", "yes"},
	{formURI, "example.com", "https://example.com/x", "yes"},
	{formURI, "example.com", "https://user@example.com:8443?x", "yes"},
	{formURI, "example.com", "spiffe://example.com/ns/x", "yes"},
	{formURI, "example.com", "https://a.example.com", "no"},
	{formURI, ".example.com", "https://a.example.com#x", "yes"},
	{formURI, ".example.com", "https://example.com", "no"},
	{formURI, "example.com", "https://example.com@evil.com/", "no"},
	{formURI, "example.com", "https://evil.com/@example.com", "no"},
	{formURI, "example.com", `https://evil.com\@example.com`, "never"},
	{formURI, "example.com", "https://127.0.0.1/", "never"},
	{formURI, "example.com", "https://[::1]/", "never"},
	{formURI, "example.com", "urn:example.com", "never"},
	{formURI, "example.com", "mailto:a?x=https://example.com", "never"},
	{formURI, "example.com", "https://example%2ecom/", "never"},
	{formIP, "\x0a\x00\x00\x00\xff\x00\x00\x00", "\x0a\x01\x02\x03", "yes"},
	{formIP, "\x0a\x09\x00\x00\xff\x00\x00\x00", "\x0a\x01\x02\x03", "yes"}, // host bits in the base do not count
	{formIP, "\x0a\x00\x00\x00\xff\x00\x00\x00", "\x0b\x01\x02\x03", "no"},
	{formIP, "\x00\x00\x00\x00\x00\x00\x00\x00", "\x0b\x01\x02\x03", "yes"},
	{formIP, "\x00\x00\x00\x00\x00\x00\x00\x00", strings.Repeat("\x00", 16), "no"},
	{formIP, strings.Repeat("\xfd", 16) + "\xff" + strings.Repeat("\x00", 15), "\xfd" + strings.Repeat("\x01", 15), "yes"},
	{formIP, "\x0a\x00\x00\x00\xff\x00\x00\x00", "\x0a\x01\x02", "never"},
	{formDirectory, string(dn(one(org, asn1.UTF8String, "Sekisho"))), string(dn(one(org, asn1.PrintableString, "SEKISHO"), one(cn, asn1.UTF8String, "x"))), "yes"},
	{formDirectory, string(dn(one(org, asn1.UTF8String, "Sekisho"))), string(dn(one(org, asn1.UTF8String, "Sekisho"))), "yes"},
	{formDirectory, string(dn(one(org, asn1.UTF8String, "Sekisho"))), string(dn(one(cn, asn1.UTF8String, "x"), one(org, asn1.UTF8String, "Sekisho"))), "no"},
	{formDirectory, string(dn()), string(dn(one(cn, asn1.UTF8String, "x"))), "yes"},
	{formOther, smtpUTF8, smtpUTF8, "never"},
	{8, "\x2a\x03", "\x2a\x03", "never"},
}

func TestConstraints(t *testing.T) {
	for _, tc := range withinCases {
		t.Run(fmt.Sprintf("%d %.40q in %.40q", tc.form, tc.name, tc.base), func(t *testing.T) {
			names, err := appendAltNames(nil, generals(general(tc.form, tc.name)))
			if err != nil {
				t.Fatal(err)
			}
			base := [][]byte{general(tc.form, tc.base)}
			for excluded, want := range map[bool]bool{false: tc.want == "yes", true: tc.want == "no"} {
				der := subtreesOf(base, nil)
				if excluded {
					der = subtreesOf(nil, base)
				}
				c, err := parseConstraints(der)
				if err != nil {
					t.Fatal(err)
				}
				budget := 100
				if err := c.check(names, &budget); (err == nil) != want {
					t.Errorf("excluded %v: %v, want it to pass: %v", excluded, err, want)
				}
				if budget == 100 && names[0].unclear == "" {
					t.Error("the comparison took nothing from the budget")
				}
			}
		})
	}
}

// Constraints of one form do not concern names of another; of several permitted subtrees one is enough, of several
// excluded none may match.
func TestConstraintsTogether(t *testing.T) {
	c, err := parseConstraints(subtreesOf(
		[][]byte{general(formDNS, "a.example"), general(formDNS, "b.example"), general(formIP, "\x0a\x00\x00\x00\xff\x00\x00\x00")},
		[][]byte{general(formDNS, "x.a.example"), general(formURI, "evil.example"), general(formEmail, "evil.example")}))
	if err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		names []byte
		want  bool
	}{
		{generals(general(formDNS, "a.example"), general(formDNS, "b.example")), true},
		{generals(general(formDNS, "a.example"), general(formDNS, "c.example")), false},
		{generals(general(formDNS, "y.x.a.example")), false},
		{generals(general(formIP, "\x0a\x00\x00\x01")), true},
		{generals(general(formIP, strings.Repeat("\x01", 16))), false}, // an address too, and in no permitted subtree
		{generals(general(formURI, "https://good.example"), general(formEmail, "a@good.example")), true},
		{generals(general(formURI, "https://evil.example")), false},
		{generals(general(formOther, smtpUTF8)), false}, // a mailbox, which is constrained and cannot be compared
		{generals(general(formOther, "\x06\x01\x2a\xa0\x02\x05\x00"), general(8, "\x2a\x03")), true},
		{generals(general(formDirectory, string(dn(one(cn, asn1.UTF8String, "x"))))), true},
	}
	for i, tc := range cases {
		names, err := appendAltNames(nil, tc.names)
		if err != nil {
			t.Fatal(err)
		}
		budget := 100
		if err := c.check(names, &budget); (err == nil) != tc.want {
			t.Errorf("case %d: %v", i, err)
		}
	}
}

// The subject counts as a directory name; its e-mail addresses count when there are no alternative names.
func TestNamesOfSubject(t *testing.T) {
	subject := dn(one(org, asn1.UTF8String, "Sekisho"), []attr{{cn, asn1.UTF8String, "x"}, {email, asn1.IA5String, "a@evil.example"}})
	mail, err := parseConstraints(subtreesOf(nil, [][]byte{general(formEmail, "evil.example")}))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		subject, san []byte
		want         bool
	}{
		{subject, nil, false},
		{subject, generals(general(formDNS, "a.example")), true},
		{dn(one(email, asn1.UTF8String, "a@good.example")), nil, true},
		{dn(one(email, asn1.UTF8String, "no address")), nil, false},
		{dn(), nil, true},
	} {
		names, err := namesOf(&x509.Certificate{RawSubject: tc.subject}, tc.san)
		if err != nil {
			t.Fatal(err)
		}
		budget := 100
		if err := mail.check(names, &budget); (err == nil) != tc.want {
			t.Errorf("%x %x: %v", tc.subject, tc.san, err)
		}
	}
}

// badConstraints are extensions that are refused as a whole.
func badConstraints() map[string][]byte {
	raw := func(tree string) []byte {
		n := len(tree)
		return append([]byte{0x30, byte(n + 4), 0xa0, byte(n + 2), 0x30, byte(n)}, tree...)
	}
	return map[string][]byte{
		"nothing":           {},
		"empty":             subtreesOf(nil, nil),
		"empty list":        {0x30, 2, 0xa0, 0},
		"bytes after":       append(subtreesOf([][]byte{general(formDNS, "a")}, nil), 0),
		"minimum 1":         raw("\x82\x01a\x80\x01\x01"),
		"maximum 0":         raw("\x82\x01a\x81\x01\x00"),
		"form 9":            raw("\x89\x01a"),
		"DNS with a blank":  raw("\x82\x03a b"),
		"DNS with a star":   raw("\x82\x03*.a"),
		"URI with a scheme": raw("\x86\x09https://a"),
		"mailbox without @": raw("\x81\x03a b"),
		"address of five":   raw("\x87\x05\x0a\x00\x00\x00\xff"),
		"no directory name": raw("\xa4\x02\x05\x00"),
		"primitive name":    raw("\x84\x02\x30\x00"),
	}
}

func TestParseConstraints(t *testing.T) {
	for name, der := range badConstraints() {
		if _, err := parseConstraints(der); err == nil {
			t.Errorf("%s: %x is taken", name, der)
		}
	}
	if _, err := parseConstraints([]byte("\x30\x0a\xa0\x08\x30\x06\x82\x01a\x80\x01\x00")); err != nil {
		t.Errorf("minimum 0, written out: %v", err)
	}
}

func FuzzParseConstraints(f *testing.F) {
	for _, der := range badConstraints() {
		f.Add(der, []byte{})
	}
	for _, tc := range withinCases {
		base := [][]byte{general(tc.form, tc.base)}
		f.Add(subtreesOf(base, base), generals(general(tc.form, tc.name)))
	}
	f.Fuzz(func(t *testing.T, der, san []byte) {
		c, err := parseConstraints(der)
		if err != nil {
			return
		}
		names, err := appendAltNames(nil, san)
		if err != nil {
			return
		}
		budget := 1000
		if err := c.check(names, &budget); err == nil && budget < 0 {
			t.Error("passed beyond its budget")
		}
		for i := range names { // one by one they pass if together they do
			if together := c.check(names, &budget); together == nil && c.check(names[i:i+1], &budget) != nil && budget >= 0 {
				t.Error("a name passes in company only")
			}
		}
	})
}
