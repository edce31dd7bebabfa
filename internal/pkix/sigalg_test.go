package pkix_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/mldsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	"sekisho/internal/pkix"
	"sekisho/internal/testpki"
)

// TestCRLSignaturesOfOpenSSL: openssl ca -gencrl signs with every algorithm that it knows and we read; each signature is
// good under its key, and bad under another or with one bit changed.
func TestCRLSignaturesOfOpenSSL(t *testing.T) {
	others := otherKeys(t)
	rsaKey := opensslKey(t, "rsa:2048")
	for _, tt := range []struct {
		name, key string
		args      []string
	}{
		{"sha1-rsa", "rsa", []string{"-md", "sha1"}},
		{"sha256-rsa", "rsa", []string{"-md", "sha256"}},
		{"sha384-rsa", "rsa", []string{"-md", "sha384"}},
		{"sha512-rsa", "rsa", []string{"-md", "sha512"}},
		{"sha256-rsa-pss", "rsa", []string{"-md", "sha256", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:32"}},
		{"sha256-rsa-pss", "rsa", []string{"-md", "sha256", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:20"}},
		{"sha384-rsa-pss", "rsa", []string{"-md", "sha384", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:-1"}},
		{"sha512-rsa-pss", "rsa", []string{"-md", "sha512", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:64"}},
		{"", "rsa", []string{"-md", "sha1", "-sigopt", "rsa_padding_mode:pss"}},
		{"", "rsa", []string{"-md", "sha256", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:0"}},
		{"", "rsa", []string{"-md", "sha256", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_mgf1_md:sha384"}},
		{"", "rsa", []string{"-md", "sha224"}},
		{"", "rsa", []string{"-md", "md5"}},
		{"sha1-ecdsa", "P-256", []string{"-md", "sha1"}},
		{"sha256-ecdsa", "P-256", []string{"-md", "sha256"}},
		{"sha384-ecdsa", "P-384", []string{"-md", "sha384"}},
		{"sha512-ecdsa", "P-521", []string{"-md", "sha512"}},
		{"sha512-ecdsa", "P-256", []string{"-md", "sha512"}},
		{"ed25519", "ed25519", nil},
	} {
		t.Run(tt.name+" "+strings.Join(tt.args, " "), func(t *testing.T) {
			key := rsaKey
			if tt.key != "rsa" {
				key = opensslKey(t, tt.key)
			}
			ca := newOpenSSLCA(t, key)
			c := parseHeader(t, ca.crl(t, tt.args...))
			if got := c.SignatureAlgorithm(); got != tt.name {
				t.Errorf("algorithm %q", got)
			}
			err := c.CheckSignature(ca.cert.PublicKey)
			if tt.name == "" {
				if !errors.Is(err, pkix.ErrSignatureAlgorithm) {
					t.Error(err)
				}
				return
			}
			if err != nil {
				t.Error(err)
			}
			checkBadSignatures(t, c, ca.cert.PublicKey, others)
		})
	}
}

// checkBadSignatures wants one changed bit in what was signed or in the signature, and every other key, refused.
func checkBadSignatures(t *testing.T, c *pkix.CRL, pub crypto.PublicKey, others []crypto.PublicKey) {
	t.Helper()
	flip := func(b []byte, i int) []byte { b = bytes.Clone(b); b[i] ^= 1; return b }
	for name, err := range map[string]error{
		"signed":    pkix.VerifySignature(c.RawSignatureAlgorithm, pub, flip(c.RawTBS, len(c.RawTBS)-1), c.Signature),
		"signature": pkix.VerifySignature(c.RawSignatureAlgorithm, pub, c.RawTBS, flip(c.Signature, len(c.Signature)-1)),
		"empty":     pkix.VerifySignature(c.RawSignatureAlgorithm, pub, c.RawTBS, nil),
	} {
		if !errors.Is(err, pkix.ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, other := range others {
		if err := c.CheckSignature(other); !errors.Is(err, pkix.ErrSignature) {
			t.Errorf("under %T: %v", other, err)
		}
	}
}

func otherKeys(t *testing.T) []crypto.PublicKey {
	t.Helper()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edKey, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	mlKey, err := mldsa.GenerateKey(mldsa.MLDSA44())
	if err != nil {
		t.Fatal(err)
	}
	return []crypto.PublicKey{
		&rsaKey.PublicKey, &ecKey.PublicKey, edKey, mlKey.PublicKey(), nil, "a string", ed25519.PublicKey{}, (*x509.Certificate)(nil),
	}
}

func TestCRLSignaturesMLDSA(t *testing.T) {
	others := otherKeys(t)
	for params, name := range map[mldsa.Parameters]string{mldsa.MLDSA44(): "ml-dsa-44", mldsa.MLDSA65(): "ml-dsa-65", mldsa.MLDSA87(): "ml-dsa-87"} {
		key, err := mldsa.GenerateKey(params)
		if err != nil {
			t.Fatal(err)
		}
		ca := testpki.NewCA(t, testpki.Key(key))
		der, err := pkix.SignCRL(template(ca), nil, ca.Key)
		if err != nil {
			t.Fatal(err)
		}
		c := parseHeader(t, der)
		if err := c.CheckSignature(ca.Cert.PublicKey); err != nil || c.SignatureAlgorithm() != name {
			t.Errorf("%s: %s, %v", name, c.SignatureAlgorithm(), err)
		}
		checkBadSignatures(t, c, ca.Cert.PublicKey, others)
	}
}

func TestSignatureAlgorithmName(t *testing.T) {
	rsa256 := []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11}
	pss := []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10}
	mgf1 := []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 8}
	sha256 := tlv(0x30, tlv(0x06, []byte{0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1}), tlv(0x05))
	sha384 := tlv(0x30, tlv(0x06, []byte{0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2}))
	hash, mask := tlv(0xa0, sha256), tlv(0xa1, tlv(0x30, tlv(0x06, mgf1), sha256))
	salt := func(n ...byte) []byte { return tlv(0xa2, tlv(0x02, n)) }
	alg := func(oid []byte, params ...[]byte) []byte {
		return tlv(0x30, append([][]byte{tlv(0x06, oid)}, params...)...)
	}
	withPSS := func(list ...[]byte) []byte { return alg(pss, tlv(0x30, list...)) }
	for name, tt := range map[string]struct {
		raw  []byte
		want string
	}{
		"RSA, NULL":         {alg(rsa256, tlv(0x05)), "sha256-rsa"},
		"RSA, absent":       {alg(rsa256), "sha256-rsa"},
		"RSA, other":        {alg(rsa256, tlv(0x30)), ""},
		"RSA, two":          {alg(rsa256, tlv(0x05), tlv(0x05)), ""},
		"OIW's RSA":         {alg([]byte{0x2b, 14, 3, 2, 29}, tlv(0x05)), "sha1-rsa"},
		"ECDSA, NULL":       {alg([]byte{0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2}, tlv(0x05)), "sha256-ecdsa"},
		"Ed25519, NULL":     {alg([]byte{0x2b, 0x65, 0x70}, tlv(0x05)), ""},
		"Ed448":             {alg([]byte{0x2b, 0x65, 0x71}), ""},
		"PSS":               {withPSS(hash, mask, salt(32)), "sha256-rsa-pss"},
		"PSS, default salt": {withPSS(hash, mask), "sha256-rsa-pss"},
		"PSS, trailer 1":    {withPSS(hash, mask, salt(32), tlv(0xa3, tlv(0x02, []byte{1}))), "sha256-rsa-pss"},
		"PSS, trailer 2":    {withPSS(hash, mask, salt(32), tlv(0xa3, tlv(0x02, []byte{2}))), ""},
		"PSS, no params":    {alg(pss), ""},
		"PSS, NULL":         {alg(pss, tlv(0x05)), ""},
		"PSS, defaults":     {withPSS(), ""},
		"PSS, no mask":      {withPSS(hash, salt(32)), ""},
		"PSS, two digests":  {withPSS(tlv(0xa0, sha384), mask, salt(32)), ""},
		"PSS, negative":     {withPSS(hash, mask, salt(0xff)), ""},
		"PSS, salt of 2000": {withPSS(hash, mask, salt(7, 0xd0)), ""},
		"PSS, tail":         {withPSS(hash, mask, salt(32), tlv(0x05)), ""},
		"PSS, other mask":   {withPSS(hash, tlv(0xa1, tlv(0x30, tlv(0x06, rsa256), sha256)), salt(32)), ""},
		"empty":             {nil, ""},
		"tail":              {append(alg(rsa256), 0), ""},
		"no OID":            {tlv(0x30), ""},
	} {
		if got := pkix.SignatureAlgorithmName(tt.raw); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
		if err := pkix.VerifySignature(tt.raw, ed25519.PublicKey{}, nil, nil); tt.want == "" && !errors.Is(err, pkix.ErrSignatureAlgorithm) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func opensslKey(t *testing.T, kind string) []byte {
	t.Helper()
	dir := t.TempDir()
	switch algorithm, size, _ := strings.Cut(kind, ":"); {
	case algorithm == "rsa":
		openssl(t, dir, "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:"+size, "-out", "key.pem")
	case algorithm == "ed25519":
		openssl(t, dir, "genpkey", "-algorithm", "ED25519", "-out", "key.pem")
	default:
		openssl(t, dir, "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:"+kind, "-out", "key.pem")
	}
	return readFile(t, dir, "key.pem")
}

// opensslCA is a folder in which openssl ca works.
type opensslCA struct {
	dir  string
	cert *x509.Certificate
}

func newOpenSSLCA(t *testing.T, key []byte) opensslCA {
	t.Helper()
	ca := opensslCA{dir: t.TempDir()}
	write(t, ca.dir, "key.pem", key)
	write(t, ca.dir, "index.txt", nil)
	write(t, ca.dir, "index.txt.attr", nil)
	write(t, ca.dir, "crlnumber", []byte("0A\n"))
	write(t, ca.dir, "ca.cnf", []byte(`
[ca]
default_ca = d
[d]
database = index.txt
crlnumber = crlnumber
certificate = ca.pem
private_key = key.pem
default_md = default
default_crl_days = 30
[full]
authorityKeyIdentifier = keyid, issuer
issuingDistributionPoint = critical, @idp
freshestCRL = URI:http://pki.example/delta.crl
[idp]
fullname = URI:http://pki.example/full.crl
onlysomereasons = keyCompromise, CACompromise, affiliationChanged
indirectCRL = TRUE
[relative]
issuingDistributionPoint = critical, @rel
[rel]
relativename = rdn
onlyuser = TRUE
[rdn]
CN = shard 7
+OU = crl
[v1]
database = index.txt
certificate = ca.pem
private_key = key.pem
default_md = default
default_crl_days = 30
`))
	openssl(t, ca.dir, "req", "-x509", "-new", "-key", "key.pem", "-subj", "/O=Sekisho/CN=openssl CA", "-days", "10", "-out", "ca.pem")
	cert, err := pkix.ParseCertificate(readFile(t, ca.dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	ca.cert = cert
	return ca
}

// crl is what openssl ca -gencrl makes, in DER.
func (ca opensslCA) crl(t *testing.T, args ...string) []byte {
	t.Helper()
	openssl(t, ca.dir, append([]string{"ca", "-gencrl", "-config", "ca.cnf", "-out", "crl.pem"}, args...)...)
	block, _ := pem.Decode(readFile(t, ca.dir, "crl.pem"))
	return block.Bytes
}
