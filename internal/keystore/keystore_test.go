package keystore

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sekisho/internal/pkix"
)

func open(t *testing.T, dir, passphrase string) *Dir {
	t.Helper()
	d, err := Open(Config{Dir: dir, Passphrase: []byte(passphrase)})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestCreateAndSign makes every key type, plain and encrypted, reads it back, and has crypto/x509 sign with it.
func TestCreateAndSign(t *testing.T) {
	for _, passphrase := range []string{"", "correct horse"} {
		for _, kind := range pkix.KeyTypes() {
			if kind == pkix.RSA4096 || kind == pkix.RSA3072 {
				continue // like RSA2048, and seconds to make
			}
			t.Run(fmt.Sprintf("%s/encrypted=%t", kind, passphrase != ""), func(t *testing.T) {
				d := open(t, filepath.Join(t.TempDir(), "keys"), passphrase)
				made, err := d.Create("issuing", kind)
				if err != nil {
					t.Fatal(err)
				}
				read, err := d.Signer("issuing")
				if err != nil {
					t.Fatal(err)
				}
				if !made.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(read.Public()) {
					t.Error("the key read is not the key made")
				}
				selfSign(t, read)
			})
		}
	}
}

func selfSign(t *testing.T, key crypto.Signer) {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if err := cert.CheckSignatureFrom(cert); err != nil {
		t.Error(err)
	}
}

func TestCreateNeverOverwrites(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir, "")
	var wins sync.Map
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			switch key, err := d.Create("one", pkix.ECDSAP256); {
			case err == nil:
				wins.Store(key, true)
			case !errors.Is(err, ErrExists):
				t.Error(err)
			}
		})
	}
	group.Wait()
	n := 0
	wins.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Errorf("%d of 8 made the key, want 1", n)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("files left: %v, %v", entries, err)
	}
}

// TestOpenRemovesLeftovers: a private key that a killed Create left under its temporary name goes at the next start, and
// nothing else does.
func TestOpenRemovesLeftovers(t *testing.T) {
	dir := t.TempDir()
	gone := []string{tempName("issuing.key"), tempName("seal.key")}
	stay := []string{"issuing.key", ".issuing.key", ".issuing.key.bak", ".gitignore", "x" + tempName("a.key"), strings.ToLower(tempName("a.key")), ".a.pem." + tempName("")[2:]}
	for _, name := range slices.Concat(gone, stay) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(Config{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	for _, name := range gone {
		if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", name, err)
		}
	}
	for _, name := range stay {
		if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}

func TestNames(t *testing.T) {
	d := open(t, t.TempDir(), "")
	for _, name := range []string{"", "A", "a/b", "../a", "a.b", "-a", "ä", "a b", "a\x00", strings.Repeat("a", 65), "seal"} {
		if _, err := d.Create(name, pkix.ECDSAP256); err == nil {
			t.Errorf("Create(%q) was taken", name)
		}
		if _, err := d.Signer(name); err == nil || errors.Is(err, ErrNotFound) {
			t.Errorf("Signer(%q): %v", name, err)
		}
	}
	if _, err := d.Signer("nobody"); !errors.Is(err, ErrNotFound) {
		t.Errorf("an absent key: %v, want ErrNotFound", err)
	}
	if _, err := d.Create("a", "dsa"); err == nil {
		t.Error("an unknown key type was taken")
	}
}

func TestInvariant11KeyFilesOfOthersAreRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "it's here")
	d := open(t, dir, "")
	if _, err := d.Create("root", pkix.ECDSAP256); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "root.key")
	for what, want := range map[string]os.FileMode{dir: 0o700, path: 0o600} {
		if info, err := os.Stat(what); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, %v; want %v", what, info.Mode().Perm(), err, want)
		}
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o602, 0o610, 0o777} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := d.Signer("root")
		if want := `chmod 600 '` + strings.ReplaceAll(path, "'", `'\''`) + "'"; !errors.Is(err, ErrPermissions) || !strings.Contains(err.Error(), want) {
			t.Errorf("mode %04o: %v; want ErrPermissions and %s", mode, err, want)
		}
	}
	if err := os.Chmod(path, 0o400); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Signer("root"); err != nil {
		t.Errorf("mode 0400: %v", err)
	}
}

// TestInvariant11KeysNeverPrint prints keys, sealers and configurations in every way at hand, bare and inside other
// values, and looks for the secret in the output.
func TestInvariant11KeysNeverPrint(t *testing.T) {
	const passphrase = "correct-horse-battery"
	dir := t.TempDir()
	cfg := Config{Dir: dir, Passphrase: []byte(passphrase)}
	d := open(t, dir, passphrase)
	signer, err := d.Create("issuing", pkix.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	key := signer.(*Key)
	sealer, err := d.Sealer()
	if err != nil {
		t.Fatal(err)
	}
	type holder struct {
		Signer crypto.Signer
		hidden crypto.Signer
		value  Key
		Config Config
		dir    *Dir
		seal   *Sealer
		slot   any
	}
	h := holder{signer, signer, *key, cfg, d, sealer, signer}
	var out bytes.Buffer
	text, js := slog.New(slog.NewTextHandler(&out, nil)), slog.New(slog.NewJSONHandler(&out, nil))
	for _, v := range []any{signer, key, *key, sealer, cfg, &cfg, d, *d, h, &h, struct{ k, s, d any }{signer, sealer, d}, []any{signer, cfg}, map[string]any{"k": key, "c": cfg}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%q", "%d"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		text.Info("value", "v", v)
		js.InfoContext(context.Background(), "value", "v", v)
		if b, err := json.Marshal(v); err == nil {
			out.Write(b)
		}
	}
	seed := key.signer().(interface{ Seed() []byte }).Seed()
	for what, secret := range map[string][]byte{"seed": seed, "passphrase": []byte(passphrase)} {
		for _, form := range []string{"%s", "%x", "%X", "%d", "%v"} {
			printed := strings.Trim(fmt.Sprintf(form, secret), "[]")
			if i := strings.Index(out.String(), printed); i >= 0 {
				t.Errorf("the %s shows as %s: …%.80s…", what, form, out.String()[max(0, i-80):])
			}
		}
	}
	if got := fmt.Sprint(signer); got != "key issuing (ed25519)" {
		t.Errorf("a key prints as %q", got)
	}
}

func TestPassphrases(t *testing.T) {
	dir := t.TempDir()
	plain, locked := open(t, dir, ""), open(t, dir, "open sesame")
	if _, err := plain.Create("plain", pkix.ECDSAP256); err != nil {
		t.Fatal(err)
	}
	if _, err := locked.Create("locked", pkix.ECDSAP256); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "locked.key"))
	if err != nil || !bytes.HasPrefix(text, []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\n")) {
		t.Errorf("the file with a passphrase begins %.40q, %v", text, err)
	}
	for _, name := range []string{"plain", "locked"} {
		if _, err := locked.Signer(name); err != nil {
			t.Errorf("%s with the passphrase: %v", name, err)
		}
	}
	for what, d := range map[string]*Dir{"none": plain, "another": open(t, dir, "open barley")} {
		if _, err := d.Signer("locked"); !errors.Is(err, ErrPassphrase) {
			t.Errorf("passphrase %s: %v, want ErrPassphrase", what, err)
		}
	}
	// Every way of damaging the file is an error, none a panic.
	for cut := 40; cut < len(text); cut += 7 {
		if err := os.WriteFile(filepath.Join(dir, "locked.key"), text[:len(text)-cut], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := locked.Signer("locked"); err == nil {
			t.Errorf("a file without its last %d bytes was taken", cut)
		}
	}
}

// TestOpenSSL reads what openssl encrypts, and has openssl read what we encrypt.
func TestOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("no openssl on this machine: apt-get install openssl")
	}
	dir := t.TempDir()
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), "openssl", args...).CombinedOutput(); err != nil {
			t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	d := open(t, dir, "sesame")
	if _, err := d.Create("ours", pkix.ECDSAP384); err != nil {
		t.Fatal(err)
	}
	run("pkey", "-in", filepath.Join(dir, "ours.key"), "-passin", "pass:sesame", "-noout", "-check")
	for name, args := range map[string][]string{
		"aes256": {"-aes-256-cbc"},
		"aes128": {"-aes-128-cbc"},
	} {
		path := filepath.Join(dir, name+".key")
		run(append([]string{"genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-pass", "pass:sesame", "-out", path}, args...)...)
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
		key, err := d.Signer(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		selfSign(t, key)
	}
	for name, args := range map[string][]string{
		"sha1":   {"-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA1"},
		"sha512": {"-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA512", "-iter", "1000"},
		"scrypt": {"-scrypt"},
		"des3":   {"-v2", "des3"},
	} {
		path := filepath.Join(dir, name+".key")
		run(append([]string{"pkcs8", "-topk8", "-in", filepath.Join(dir, "aes256.key"), "-passin", "pass:sesame", "-passout", "pass:sesame", "-out", path}, args...)...)
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := d.Signer(name)
		if want := name == "scrypt"; want != (err != nil) || want && !strings.Contains(err.Error(), "convert the key with openssl pkcs8") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSealer(t *testing.T) {
	for _, passphrase := range []string{"", "sesame"} {
		dir := t.TempDir()
		seal := func(pass string) *Sealer {
			t.Helper()
			s, err := open(t, dir, pass).Sealer()
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		sealed, err := seal(passphrase).Seal([]byte("ticket key"), []byte("epoch 7"))
		if err != nil {
			t.Fatal(err)
		}
		again := seal(passphrase)
		if got, err := again.Open(sealed, []byte("epoch 7")); err != nil || string(got) != "ticket key" {
			t.Errorf("after a restart: %q, %v", got, err)
		}
		if _, err := again.Open(sealed, []byte("epoch 8")); !errors.Is(err, ErrSeal) {
			t.Errorf("in another context: %v, want ErrSeal", err)
		}
		for i := range sealed {
			bad := bytes.Clone(sealed)
			bad[i] ^= 1
			if _, err := again.Open(bad, []byte("epoch 7")); !errors.Is(err, ErrSeal) {
				t.Errorf("octet %d changed: %v, want ErrSeal", i, err)
			}
			if _, err := again.Open(sealed[:i], []byte("epoch 7")); !errors.Is(err, ErrSeal) {
				t.Errorf("cut to %d octets: %v, want ErrSeal", i, err)
			}
		}
		if other, err := again.Seal([]byte("ticket key"), []byte("epoch 7")); err != nil || bytes.Equal(other, sealed) {
			t.Errorf("sealing twice gives the same octets, %v", err)
		}
		if info, err := os.Stat(filepath.Join(dir, "seal.key")); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("seal.key: %v, %v", info, err)
		}
	}
}

func TestSealersOfOneDirectoryAgree(t *testing.T) {
	d := open(t, t.TempDir(), "")
	sealers := make([]*Sealer, 8)
	var group sync.WaitGroup
	for i := range sealers {
		group.Go(func() {
			var err error
			if sealers[i], err = d.Sealer(); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if t.Failed() {
		return
	}
	for _, s := range sealers {
		sealed, err := s.Seal([]byte("x"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sealers[0].Open(sealed, nil); err != nil {
			t.Error(err)
		}
	}
}

func FuzzDecryptPEM(f *testing.F) {
	key, err := pkix.GenerateKey(pkix.ECDSAP256)
	if err != nil {
		f.Fatal(err)
	}
	text, err := pkix.EncodePrivateKey(key)
	if err != nil {
		f.Fatal(err)
	}
	locked, err := encryptPEM(text, []byte("sesame"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(locked)
	f.Fuzz(func(t *testing.T, der []byte) {
		if out, err := decryptPEM(der, []byte("sesame")); err == nil && len(out) == 0 {
			t.Error("no error and no key")
		}
	})
}
