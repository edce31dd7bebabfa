package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
	"sekisho/internal/testpki"
)

// TestCertImportInParts: a bundle of more than one import takes is sent in parts; where a later part is refused, those
// before it are recorded and listed, and the file can be brought again.
func TestCertImportInParts(t *testing.T) {
	dir, files := t.TempDir(), t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(files, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	made := testpki.NewCA(t)
	key, err := pkix.EncodePrivateKey(made.Key)
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"ca", "init"}, {"ca", "import", "--cert", write("ca.pem", string(made.PEM)), "--key", write("ca-key.pem", string(key)), "--name", "legacy"}} {
		if out, code := offline(t, append(args, "--data", dir)...); code != exitOK {
			t.Fatal(out)
		}
	}
	shared := made.Client("shared")
	certs := make([]string, 2*ca.MaxImportCertificates+1)
	for i := range certs {
		certs[i] = fmt.Sprintf("subject=device %d\n%s", i, made.Client("many", testpki.Key(shared.Key)).CertPEM)
	}
	bad := slices.Clone(certs)
	bad[ca.MaxImportCertificates+3] = string(testpki.NewCA(t).Client("foreign").CertPEM)
	out, errs, code := sekisho(t, "", "cert", "import", write("bad.pem", strings.Join(bad, "")), "--data", dir)
	if code == exitOK || !strings.Contains(errs, "bad.pem, certificates 1001 to 2000: ") || !strings.Contains(errs, "certificate 4 of 1000") {
		t.Errorf("a part that is refused: %d %.400s", code, errs)
	}
	if got := strings.Count(out, "  imported  "); got != ca.MaxImportCertificates {
		t.Errorf("%d are listed as imported", got)
	}
	out, code = offline(t, "cert", "import", write("good.pem", strings.Join(certs, "")), "--data", dir)
	if known, fresh := strings.Count(out, "  known  "), strings.Count(out, "  imported  "); code != exitOK || known != ca.MaxImportCertificates || fresh != len(certs)-known {
		t.Errorf("again: %d, %d known, %d imported", code, known, fresh)
	}
}

// TestBundleParts: nothing of a bundle is lost or cut within a block, whatever is between blocks.
func TestBundleParts(t *testing.T) {
	const block = "-----BEGIN X-----\nAA==\n-----END X-----\n"
	for _, test := range []struct {
		name, text     string
		blocks, octets int
		want           []int
	}{
		{"empty", "", 2, 1000, []int{0}},
		{"no block", "hello", 2, 1000, []int{1}},
		{"one part", block + block, 2, 1000, []int{2}},
		{"by number", "a\n" + block + "b\n" + block + block + "c\n" + block + block + "d", 2, 1000, []int{2, 2, 1}},
		{"by size", block + block + block, 9, 2*len(block) + 1, []int{2, 1}},
		{"one over the size", block + block, 9, 10, []int{1, 1}},
	} {
		var text string
		var counts []int
		for _, part := range bundleParts(test.text, test.blocks, test.octets) {
			text, counts = text+part.text, append(counts, part.blocks)
		}
		if text != test.text || !slices.Equal(counts, test.want) {
			t.Errorf("%s: parts of %v, %q", test.name, counts, text)
		}
	}
}
