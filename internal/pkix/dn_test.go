package pkix_test

import (
	"bytes"
	"encoding/hex"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"sekisho/internal/pkix"
	"sekisho/internal/testpki"
)

// oddNames are names in text, each a trap.
func oddNames() []string {
	return []string{
		"CN=Iwa Te",
		"CN=Iwa Te,OU=Gate,O=Sekisho,L=Hakone,ST=Kanagawa,C=JP",
		`CN=Sekisho\, Inc.,O=a\"b\<c\>\;d\\e\+f`,
		`CN=\ lead and trail\ `,
		`CN=\#hash,O=a#b,OU=#0C0161`,
		`CN=\#`,
		`CN=\ `,
		`CN=\ \ `,
		"CN=関所,O=Ōtemachi\u00a0€",
		`CN=\E9\96\A2`,
		"CN=a/b=c,O=d=e",
		"CN=a/b+emailAddress=a@b.example,O=c",
		"serialNumber=12+CN=dev+UID=u1,DC=example,DC=com",
		"1.2.3.4=#0C03686579,CN=x",
		"1.2.3.4=hey,CN=x",
		"2.999.1=#0C026162,CN=x",
		"STREET=1-2-3,title=Dr,SN=Te,GN=Iwa,CN=x",
		"CN=#1E04AAAABBBB",
		"CN=#1C080000961C0001F600",
		"CN=#1402E9FF",
	}
}

func TestDNStringAgainstOpenSSL(t *testing.T) {
	for _, text := range oddNames() {
		t.Run(text, func(t *testing.T) {
			name, err := pkix.ParseDN(text)
			if err != nil {
				t.Fatal(err)
			}
			compareWithOpenSSL(t, name)
		})
	}
}

// TestRawNames compares names that ParseDN refuses to make.
func TestRawNames(t *testing.T) {
	for _, tt := range []struct{ name, der string }{
		{"control characters", "300e310c300a06035504030c03610a7f"},
		{"NUL", "300e310c300a06035504030c03610062"},
		{"latin-1 in PrintableString", "300e310c300a0603550403130361e962"},
		{"bit string", "300e310c300a060355042d0303000102"},
		{"empty value", "300b3109300706035504030c00"},
		{"two in one set, certificate order", "301a3118300a06035504030c03616161300a06035504030c03626262"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			der, err := hex.DecodeString(tt.der)
			if err != nil {
				t.Fatal(err)
			}
			compareWithOpenSSL(t, der)
		})
	}
}

// compareWithOpenSSL puts the name in a certificate assembled by hand, which
// openssl prints without judging.
func compareWithOpenSSL(t *testing.T, name []byte) {
	t.Helper()
	ca := testpki.NewCA(t)
	der := replaceSubject(t, ca, name)
	dir := t.TempDir()
	file := write(t, dir, "x.pem", pkix.EncodeCertificate(der))
	for _, form := range []struct{ nameopt, got string }{
		{"RFC2253", pkix.DNString(name)},
		{"compat", pkix.DNLegacy(name)},
	} {
		out := openssl(t, dir, "x509", "-in", file, "-noout", "-subject", "-nameopt", form.nameopt)
		want := strings.TrimPrefix(strings.TrimSuffix(out, "\n"), "subject=")
		if diff := cmp.Diff(want, form.got); diff != "" {
			t.Errorf("%s (-openssl +ours):\n%s", form.nameopt, diff)
		}
	}
}

// replaceSubject is the CA's certificate with the name as issuer and subject,
// any DER at all; its signature no longer fits.
func replaceSubject(t *testing.T, ca *testpki.CA, name []byte) []byte {
	t.Helper()
	input := cryptobyte.String(ca.Cert.RawTBSCertificate)
	var tbs cryptobyte.String
	if !input.ReadASN1(&tbs, asn1.SEQUENCE) {
		t.Fatal("the CA's certificate cannot be read")
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for !tbs.Empty() {
				var element cryptobyte.String
				var tag asn1.Tag
				if !tbs.ReadAnyASN1Element(&element, &tag) {
					t.Error("the CA's certificate cannot be read")
					return
				}
				if bytes.Equal(element, ca.Cert.RawSubject) {
					element = name
				}
				b.AddBytes(element)
			}
		})
		b.AddBytes([]byte{0x30, 10, 0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2}) // ecdsa-with-SHA256
		b.AddASN1BitString([]byte{0})
	})
	return b.BytesOrPanic()
}

func TestParseDNAgainstOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed; apt-get install openssl")
	}
	ca := testpki.NewCA(t)
	key, err := pkix.EncodePrivateKey(ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write(t, dir, "key.pem", key)
	for _, subject := range []string{
		"/C=JP/ST=Tokyo/L=Chiyoda/O=Sekisho/OU=Gate/CN=Iwa Te",
		"/C=JP/ST=東京都/O=関所/CN=localhost",
		`/O=a\/b\+c\\d, "e" <f>;g=h/CN= x `,
		"/DC=com/DC=example/UID=u1+CN=dev+serialNumber=12",
		"/CN=x/emailAddress=a@b.example/street=1-2/title=Dr/SN=Te/GN=Iwa",
		"/commonName=x/organizationName=y/2.5.4.11=z",
		"/",
	} {
		t.Run(subject, func(t *testing.T) {
			openssl(t, dir, "req", "-new", "-utf8", "-key", "key.pem", "-subj", subject, "-outform", "PEM", "-out", "x.csr")
			csr, err := pkix.ParseCSR([]byte(openssl(t, dir, "req", "-in", "x.csr")))
			if err != nil {
				t.Fatal(err)
			}
			name, err := pkix.ParseDN(subject)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(hex.EncodeToString(csr.RawSubject), hex.EncodeToString(name)); diff != "" {
				t.Errorf("(-openssl +ours):\n%s", diff)
			}
		})
	}
}

func TestParseDNForms(t *testing.T) {
	for _, tt := range []struct{ in, legacy, rfc string }{
		{"CN=a,O=b,C=JP", "/C=JP/O=b/CN=a", "CN=a,O=b,C=JP"},
		{" cn = a , o = b ", "/O=b/CN=a", "CN=a,O=b"},
		{"/CN=a/O=b", "/CN=a/O=b", "O=b,CN=a"},
		{"E=a@b.example", "/emailAddress=a@b.example", "emailAddress=a@b.example"},
		{"commonName=a+surname=b", "/CN=a+SN=b", "SN=b+CN=a"},
		{"OID.2.5.4.3=a", "/CN=a", "CN=a"},
		{`/CN=caf\xC3\xA9`, `/CN=caf\xC3\xA9`, `CN=caf\C3\A9`},
		{"UID=a", "/UID=a", "UID=a"},
		{"streetAddress=a", "/street=a", "street=a"},
		{"CN=#", "/CN=#", "CN=#"},
		{"CN=#1E04D83DDE00", `/CN=\xD8=\xDE\x00`, `CN=\F0\9F\98\80`},
		{"2.5.4.45=#0303000102", `/x500UniqueIdentifier=\x01\x02`, "x500UniqueIdentifier=#0303000102"},
		{"/", "", ""},
	} {
		name, err := pkix.ParseDN(tt.in)
		if err != nil {
			t.Errorf("%q: %v", tt.in, err)
			continue
		}
		if got := pkix.DNLegacy(name); got != tt.legacy {
			t.Errorf("%q: legacy %q, want %q", tt.in, got, tt.legacy)
		}
		if got := pkix.DNString(name); got != tt.rfc {
			t.Errorf("%q: %q, want %q", tt.in, got, tt.rfc)
		}
	}
}

func TestParseDNErrors(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", "empty"},
		{"   ", "empty"},
		{"Iwa Te", "has no ="},
		{"CN=a,b", `"b" at character 6 has no =; write \,`},
		{"/CN=a/b", `"b" at character 7 has no =; write \/`},
		{"CN=a,", "has no ="},
		{"CN=a+", "has no ="},
		{"/CN=a+", "nothing follows"},
		{"//CN=a", "has no ="},
		{"FOO=a", `unknown attribute "FOO"; known are CN, O`},
		{"CN=", "CN has no value"},
		{"/CN=/O=x", "CN has no value"},
		{"C=JPN", "two letters"},
		{"C=J1", "two letters"},
		{"CN=" + strings.Repeat("x", 65), "CN has 65 characters; X.520 allows 64"},
		{"CN=" + strings.Repeat("関", 65), "65 characters"},
		{"DC=関所", "ASCII"},
		{"emailAddress=é@x", "ASCII"},
		{"serialNumber=a_b", "only letters"},
		{"CN=a\x00b", "control"},
		{`CN=a\00b`, "control"},
		{`CN=a\0ab`, "control"},
		{"CN=#0C0100", "control"},
		{"CN=#0C", "not one DER element"},
		{"CN=#zz", "not hexadecimal"},
		{"CN=#04020102", "not a string type"},
		{`CN=a\`, "backslash at character 5"},
		{`CN=a\zb`, "backslash"},
		{`/CN=a\`, "backslash"},
		{`CN=a"b`, `'"' at character 5`},
		{"CN=a;O=b", `';'`},
		{"CN=a+CN=b", "twice"},
		{"CN=\xff", "UTF-8"},
		{"1.2.x=a", "object identifier"},
		{"postalAddress=x", "#hex"},
		{strings.Repeat("x", 20000), "20000 bytes"},
		{strings.Repeat("/O=x", 65), "more than 64"},
	} {
		if _, err := pkix.ParseDN(tt.in); err == nil {
			t.Errorf("%.40q was taken, want an error with %q", tt.in, tt.want)
		} else if !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.40q: %v; want %q", tt.in, err, tt.want)
		}
	}
	if name, err := pkix.ParseDN("CN=" + strings.Repeat("関", 64)); err != nil || len(name) == 0 {
		t.Errorf("64 characters of 3 octets: %v", err)
	}
}

func TestAttribute(t *testing.T) {
	name, err := pkix.ParseDN(`/C=JP/L=箱根/O=Sekisho, Inc./OU=one/OU=two/CN=first/CN=second`)
	if err != nil {
		t.Fatal(err)
	}
	for short, want := range map[string]string{
		"C": "JP", "L": "箱根", "O": "Sekisho, Inc.", "OU": "one", "CN": "first", "ST": "", "nonsense": "",
	} {
		if got := pkix.Attribute(name, short); got != want {
			t.Errorf("%s is %q, want %q", short, got, want)
		}
	}
	if pkix.CommonName(name) != "first" || pkix.CommonName(nil) != "" || pkix.DNString([]byte{0x30, 0x84}) != "" {
		t.Error("CommonName or a broken name")
	}
}

func FuzzParseDN(f *testing.F) {
	for _, text := range oddNames() {
		f.Add(text)
	}
	f.Add(`/C=JP/O=a\/b\+c/CN=x+UID=y`)
	f.Add("uid=#03020101")
	f.Add("CN=#1E04D83DDE00")
	f.Fuzz(func(t *testing.T, text string) {
		name, err := pkix.ParseDN(text)
		if err != nil {
			return
		}
		printed := pkix.DNString(name)
		if printed == "" {
			return // "/", the empty name
		}
		again, err := pkix.ParseDN(printed)
		if err != nil {
			t.Fatalf("%q prints as %q, which is refused: %v", text, printed, err)
		}
		if got := pkix.DNString(again); got != printed {
			t.Errorf("%q prints as %q, then as %q", text, printed, got)
		}
		pkix.DNLegacy(name)
		pkix.CommonName(name)
	})
}
