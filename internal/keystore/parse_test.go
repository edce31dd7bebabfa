package keystore

import (
	"bytes"
	"crypto"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sekisho/internal/pkix"
)

// TestParseKey reads one key in every form that openssl writes, with the right passphrase, a wrong one and none.
func TestParseKey(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain.pem")
	openssl := func(args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), "openssl", args...).CombinedOutput(); err != nil {
			t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", plain)
	text, err := os.ReadFile(plain)
	if err != nil {
		t.Fatal(err)
	}
	want, err := ParseKey(text, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"pkcs8":                 {"pkcs8", "-topk8", "-passout", "pass:sesame"},
		"pkcs8 by aes-192":      {"pkcs8", "-topk8", "-v2", "aes-192-cbc", "-passout", "pass:sesame"},
		"pkcs8 by 3des":         {"pkcs8", "-topk8", "-v2", "des3", "-passout", "pass:sesame"},
		"traditional aes-256":   {"rsa", "-traditional", "-aes256", "-passout", "pass:sesame"},
		"traditional 3des":      {"rsa", "-traditional", "-des3", "-passout", "pass:sesame"},
		"traditional, no cover": {"rsa", "-traditional"},
	} {
		path := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
		openssl(append(args, "-in", plain, "-out", path)...)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		key, err := ParseKey(text, []byte("sesame"))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if pub, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(want.Public()) {
			t.Errorf("%s: another key", name)
		}
		for _, pass := range []string{"", "open"} {
			if _, err := ParseKey(text, []byte(pass)); !errors.Is(err, ErrPassphrase) && name != "traditional, no cover" {
				t.Errorf("%s, passphrase %q: %v", name, pass, err)
			}
		}
	}
	for name, text := range map[string][]byte{
		"empty": nil, "garbage": []byte("x"), "over the bound": bytes.Repeat([]byte("x"), pkix.MaxPrivateKeyBytes+1),
		"unknown cipher":  []byte("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: ROT13,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n"),
		"unknown PBES":    []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n"),
		"parameters only": []byte("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"),
	} {
		if _, err := ParseKey(text, []byte("sesame")); err == nil || errors.Is(err, ErrPassphrase) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestAdd: a key from elsewhere is stored like one of our own making, encrypted under the passphrase, and never replaced.
func TestAdd(t *testing.T) {
	for _, pass := range []string{"", "sesame"} {
		dir := t.TempDir()
		d := open(t, dir, pass)
		key, err := pkix.GenerateKey(pkix.Ed25519)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Add("ca-imported-1", key); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(dir, "ca-imported-1.key"))
		if err != nil || bytes.Contains(text, []byte("ENCRYPTED")) != (pass != "") {
			t.Errorf("passphrase %q: %s %v", pass, text[:30], err)
		}
		signer, err := open(t, dir, pass).Signer("ca-imported-1")
		if err != nil {
			t.Fatal(err)
		}
		selfSign(t, signer)
		if _, err := d.Add("ca-imported-1", key); !errors.Is(err, ErrExists) {
			t.Errorf("a second key of that name: %v", err)
		}
		if _, err := d.Add("../x", key); err == nil {
			t.Error("a name outside the directory was taken")
		}
	}
}
