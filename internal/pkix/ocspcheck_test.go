package pkix_test

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/x509"
	x509pkix "crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net/http"
	"os/exec"
	"regexp"
	"testing"
	"time"

	"sekisho/internal/pkix"
	"sekisho/internal/testpki"
)

// responderDir is a folder in which openssl plays the responder of a CA: 0xa1 is
// good, 0xa2 revoked, everything else unknown.
type responderDir struct {
	dir string
	ca  *testpki.CA
}

func newResponderDir(t *testing.T, ca *testpki.CA) responderDir {
	t.Helper()
	d := responderDir{t.TempDir(), ca}
	write(t, d.dir, "ca.pem", ca.PEM)
	write(t, d.dir, "index.txt", []byte("V\t350101000000Z\t\tA1\tunknown\t/CN=one\nR\t350101000000Z\t200102030405Z,keyCompromise\tA2\tunknown\t/CN=two\n"))
	return d
}

// answer is openssl's response about the three, signed by the key of leaf.
func (d responderDir) answer(t *testing.T, hash crypto.Hash, leaf testpki.Leaf, args ...string) []byte {
	t.Helper()
	write(t, d.dir, "r.pem", leaf.CertPEM)
	write(t, d.dir, "r.key", leaf.KeyPEM)
	req := pkix.OCSPRequest{Nonce: []byte("0123456789abcdef")}
	for _, n := range []int64{0xa1, 0xa2, 0xa3} {
		req.Certs = append(req.Certs, pkix.NewOCSPCertID(hash, d.ca.Cert, pkix.SerialOf(big.NewInt(n))))
	}
	write(t, d.dir, "req.der", req.Marshal())
	openssl(t, d.dir, append([]string{
		"ocsp", "-index", "index.txt", "-CA", "ca.pem", "-rsigner", "r.pem", "-rkey", "r.key",
		"-reqin", "req.der", "-respout", "resp.der",
	}, args...)...)
	return readFile(t, d.dir, "resp.der")
}

// itself is the CA as a signer.
func itself(t *testing.T, ca *testpki.CA) testpki.Leaf {
	t.Helper()
	key, err := pkix.EncodePrivateKey(ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	return testpki.Leaf{Cert: ca.Cert, Key: ca.Key, CertPEM: ca.PEM, KeyPEM: key}
}

// ocspSigning is the template of a delegate, changed by more.
func ocspSigning(more ...func(*x509.Certificate)) testpki.Option {
	return testpki.Edit(func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
		for _, f := range more {
			f(c)
		}
	})
}

func notSHA1(algorithm string) bool { return algorithm != "sha1-rsa" && algorithm != "sha1-ecdsa" }

// TestCheckResponderOpenSSL: openssl as the responder, direct and delegated, right and wrong.
func TestCheckResponderOpenSSL(t *testing.T) {
	now := time.Now()
	ca := testpki.NewCA(t)
	rsa := testpki.NewCA(t, testpki.KeyType(pkix.RSA2048), testpki.Name("rsa root"))
	namesake := testpki.NewCA(t) // of the same name, with another key
	delegate := ca.Client("responder", ocspSigning())
	dir, rsaDir := newResponderDir(t, ca), newResponderDir(t, rsa)
	for _, tt := range []struct {
		name   string
		dir    responderDir
		hash   crypto.Hash
		signer testpki.Leaf
		args   []string
		want   string // error; empty: the response is taken
	}{
		{"issuer by name", dir, crypto.SHA1, itself(t, ca), nil, ""},
		{"issuer by key", dir, crypto.SHA1, itself(t, ca), []string{"-resp_key_id"}, ""},
		{"issuer, no certificates", dir, crypto.SHA1, itself(t, ca), []string{"-resp_no_certs"}, ""},
		{"CertID by SHA-256", dir, crypto.SHA256, itself(t, ca), nil, ""},
		{"CertID by SHA-512", dir, crypto.SHA512, itself(t, ca), nil, ""},
		{"RSA issuer", rsaDir, crypto.SHA1, itself(t, rsa), nil, ""},
		{"RSA with SHA-512", rsaDir, crypto.SHA1, itself(t, rsa), []string{"-rmd", "sha512"}, ""},
		{
			"RSASSA-PSS", rsaDir, crypto.SHA1, itself(t, rsa),
			[]string{"-rsigopt", "rsa_padding_mode:pss", "-rsigopt", "rsa_pss_saltlen:digest", "-rmd", "sha256"},
			"",
		},
		{"delegate by name", dir, crypto.SHA1, delegate, nil, ""},
		{"delegate by key", dir, crypto.SHA1, delegate, []string{"-resp_key_id"}, ""},
		{"delegate with nocheck", dir, crypto.SHA1, ca.Client("r", ocspSigning(func(c *x509.Certificate) {
			c.ExtraExtensions = []x509pkix.Extension{pkix.OCSPNoCheck()}
		})), nil, ""},
		{"delegate without key usage", dir, crypto.SHA1, ca.Client("r", ocspSigning(func(c *x509.Certificate) { c.KeyUsage = 0 })), nil, ""},
		{"Ed25519 delegate", dir, crypto.SHA1, ca.Client("r", ocspSigning(), testpki.KeyType(pkix.Ed25519)), nil, ""},
		{"delegate not sent", dir, crypto.SHA1, delegate, []string{"-resp_no_certs"}, "neither the issuer nor in a certificate sent along"},
		{"bad signature", dir, crypto.SHA1, itself(t, ca), []string{"-badsig"}, "signature is not by this key"},
		{"bad signature of a delegate", dir, crypto.SHA1, delegate, []string{"-badsig"}, "signature is not by this key"},
		{"SHA-1 signature", rsaDir, crypto.SHA1, itself(t, rsa), []string{"-rmd", "sha1"}, "sha1-rsa is not allowed"},
		{"another CA", dir, crypto.SHA1, itself(t, rsa), nil, "its certificate is of another issuer"},
		{"another CA of the same name", dir, crypto.SHA1, itself(t, namesake), nil, "signature is not by this key"},
		{"delegate of another CA of the same name", dir, crypto.SHA1, namesake.Client("r", ocspSigning()), nil, "not signed by the issuer"},
		{"delegate of a CA below", dir, crypto.SHA1, ca.Intermediate("below").Client("r", ocspSigning()), nil, "of another issuer"},
		{"no EKU", dir, crypto.SHA1, ca.Client("r", testpki.NoEKU()), nil, "no extended key usage OCSPSigning"},
		{"client EKU", dir, crypto.SHA1, ca.Client("r"), nil, "no extended key usage OCSPSigning"},
		{"any EKU", dir, crypto.SHA1, ca.Client("r", testpki.Edit(func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
		})), nil, "no extended key usage OCSPSigning"},
		{"wrong key usage", dir, crypto.SHA1, ca.Client("r", ocspSigning(func(c *x509.Certificate) {
			c.KeyUsage = x509.KeyUsageKeyEncipherment
		})), nil, "does not allow digitalSignature"},
		{"a CA below as delegate", dir, crypto.SHA1, itself(t, ca.Intermediate("below", ocspSigning())), nil, "is a CA's"},
		{"critical extension", dir, crypto.SHA1, ca.Client("r", ocspSigning(func(c *x509.Certificate) {
			c.ExtraExtensions = []x509pkix.Extension{{Id: []int{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
		})), nil, "unknown critical extension 1.2.3"},
		{"expired", dir, crypto.SHA1, ca.Client("r", ocspSigning(), testpki.NotAfter(now.Add(-time.Minute))), nil, "expired at"},
		{"not yet valid", dir, crypto.SHA1, ca.Client("r", ocspSigning(), testpki.NotBefore(now.Add(time.Minute))), nil, "not valid before"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			der := tt.dir.answer(t, tt.hash, tt.signer, tt.args...)
			r, err := pkix.ParseOCSPResponse(der)
			if err != nil {
				t.Fatal(err)
			}
			signer, err := r.CheckResponder(tt.dir.ca.Cert, now, notSHA1)
			if tt.want != "" {
				if signer != nil || !errors.Is(err, pkix.ErrOCSPResponder) {
					t.Errorf("%v, %v", signer, err)
				}
				wantError(t, err, tt.want)
				return
			}
			if err != nil || !signer.Equal(tt.signer.Cert) {
				t.Fatalf("%v, %v", signer, err)
			}
			if want := tt.name == "delegate with nocheck"; pkix.HasOCSPNoCheck(signer) != want {
				t.Errorf("nocheck is not %v", want)
			}
			checkThree(t, r, tt.dir.ca)
		})
	}
}

// checkThree compares the answers with what index.txt says.
func checkThree(t *testing.T, r *pkix.OCSPResponse, ca *testpki.CA) {
	t.Helper()
	if string(r.Nonce) != "0123456789abcdef" || len(r.Singles) != 3 {
		t.Errorf("nonce %q, %d answers", r.Nonce, len(r.Singles))
	}
	for n, want := range map[int64]pkix.OCSPStatus{0xa1: pkix.OCSPGood, 0xa2: pkix.OCSPRevoked, 0xa3: pkix.OCSPUnknown} {
		s, ok := r.Single(ca.Cert, pkix.SerialOf(big.NewInt(n)))
		if !ok || s.Status != want || !s.NextUpdate.IsZero() || time.Since(s.ThisUpdate) > time.Minute {
			t.Errorf("%x: %+v", n, s)
		}
		if want == pkix.OCSPRevoked && (s.Reason != pkix.KeyCompromise || !s.RevokedAt.Equal(time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC))) {
			t.Errorf("%+v", s)
		}
	}
}

// TestCheckResponderWeakDelegate: the delegate's own certificate must be signed with an algorithm that is taken, too.
func TestCheckResponderWeakDelegate(t *testing.T) {
	ca := testpki.NewCA(t, testpki.KeyType(pkix.RSA2048))
	dir := newResponderDir(t, ca)
	delegate := ca.Client("r")
	key, err := pkix.EncodePrivateKey(ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir.dir, "ca.key", key)
	write(t, dir.dir, "leaf.key", delegate.KeyPEM)
	write(t, dir.dir, "ext", []byte("extendedKeyUsage=OCSPSigning\n"))
	openssl(t, dir.dir, "req", "-new", "-key", "leaf.key", "-subj", "/CN=weak", "-out", "csr.pem")
	openssl(t, dir.dir, "x509", "-req", "-in", "csr.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-sha1", "-extfile", "ext", "-days", "1", "-set_serial", "7", "-out", "weak.pem")
	delegate.CertPEM = readFile(t, dir.dir, "weak.pem")
	r, err := pkix.ParseOCSPResponse(dir.answer(t, crypto.SHA1, delegate, "-nmin", "5"))
	if err != nil {
		t.Fatal(err)
	}
	if s := r.Singles[0]; s.NextUpdate.Sub(s.ThisUpdate) != 5*time.Minute {
		t.Errorf("%+v", s)
	}
	_, err = r.CheckResponder(ca.Cert, time.Now().Add(time.Minute), notSHA1)
	wantError(t, err, "its certificate: signature algorithm sha1-rsa is not allowed")
	if _, err = r.CheckResponder(ca.Cert, time.Now().Add(time.Minute), anyAlgorithm); err != nil {
		t.Errorf("allowed: %v", err)
	}
}

// TestCheckResponderOwnDelegate: SignOCSP by a delegate; and one that is sent along with other certificates around it.
func TestCheckResponderOwnDelegate(t *testing.T) {
	ca := testpki.NewCA(t)
	delegate := ca.Client("responder", ocspSigning())
	older := ca.Client("responder", ocspSigning(), testpki.NotAfter(time.Now().Add(-time.Hour)), testpki.Key(delegate.Key))
	tmpl := answer(ca, crypto.SHA1)
	tmpl.Responder, tmpl.Include = delegate.Cert, []*x509.Certificate{ca.Cert, older.Cert, delegate.Cert}
	der, err := pkix.SignOCSP(tmpl, delegate.Key)
	if err != nil {
		t.Fatal(err)
	}
	r, err := pkix.ParseOCSPResponse(der)
	if err != nil {
		t.Fatal(err)
	}
	if signer, err := r.CheckResponder(ca.Cert, time.Now(), anyAlgorithm); err != nil || !signer.Equal(delegate.Cert) {
		t.Errorf("%v, %v", signer, err)
	}
	if _, err := r.CheckResponder(testpki.NewCA(t).Cert, time.Now(), anyAlgorithm); !errors.Is(err, pkix.ErrOCSPResponder) {
		t.Errorf("another CA's issuer: %v", err)
	}
	// Every octet that is signed counts.
	at := bytes.Index(der, []byte("0123456789abcdef"))
	der = bytes.Clone(der)
	der[at] ^= 1
	if r, err = pkix.ParseOCSPResponse(der); err != nil {
		t.Fatal(err)
	}
	_, err = r.CheckResponder(ca.Cert, time.Now(), anyAlgorithm)
	wantError(t, err, "responder CN=responder: its certificate expired") // the first of the two reasons
}

// TestOCSPResponseOverHTTP asks a running openssl responder.
func TestOCSPResponseOverHTTP(t *testing.T) {
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed; apt-get install openssl")
	}
	ca := testpki.NewCA(t)
	dir := newResponderDir(t, ca)
	signer := itself(t, ca)
	write(t, dir.dir, "r.pem", signer.CertPEM)
	write(t, dir.dir, "r.key", signer.KeyPEM)
	cmd := exec.CommandContext(t.Context(), path, "ocsp", "-index", "index.txt", "-CA", "ca.pem", "-rsigner", "r.pem", "-rkey", "r.key", "-port", "0", "-nrequest", "1")
	cmd.Dir = dir.dir
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	line, err := bufio.NewReader(out).ReadString('\n')
	port := regexp.MustCompile(`:(\d+) `).FindStringSubmatch(line)
	if err != nil || port == nil {
		t.Fatalf("openssl prints %q, %v", line, err)
	}
	id := pkix.NewOCSPCertID(crypto.SHA256, ca.Cert, pkix.SerialOf(big.NewInt(0xa2)))
	client := http.Client{Timeout: 10 * time.Second}
	request := pkix.OCSPRequest{Certs: []pkix.OCSPCertID{id}}.Marshal()
	resp, err := client.Post("http://127.0.0.1:"+port[1], "application/ocsp-request", bytes.NewReader(request))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	der, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	r, err := pkix.ParseOCSPResponse(der)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.CheckResponder(ca.Cert, time.Now(), notSHA1); err != nil {
		t.Error(err)
	}
	if s, ok := r.Single(ca.Cert, id.Serial); !ok || s.Status != pkix.OCSPRevoked {
		t.Errorf("%+v", s)
	}
}
