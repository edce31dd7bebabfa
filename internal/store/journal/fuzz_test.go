package journal_test

import (
	"bytes"
	"crypto/ed25519"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"sekisho/internal/store/journal"
)

// FuzzRecord: whatever is read as a record is written again as the same octets, JSON of a CA aside.
func FuzzRecord(f *testing.F) {
	r := rand.New(rand.NewPCG(11, 12))
	for range 60 {
		data, err := journal.AppendRecord(randomRecord(r))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		f.Add(data[:len(data)/2])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		record, rest, err := journal.ParseRecord(data)
		if err != nil {
			return
		}
		again, err := journal.AppendRecord(record)
		if err != nil {
			t.Fatalf("%+v was read and cannot be written: %v", record, err)
		}
		if used := data[:len(data)-len(rest)]; record.CA == nil && !bytes.Equal(used, again) {
			t.Errorf("read  %x\nwrote %x", used, again)
		}
	})
}

// FuzzFile: a file of any content is read or refused, in memory that its size bounds.
func FuzzFile(f *testing.F) {
	file, cfg := create(f)
	r := rand.New(rand.NewPCG(13, 14))
	for range 3 {
		commit(f, file, randomRecord(r), randomRecord(r))
	}
	whole, err := os.ReadFile(cfg.Path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)-10])
	f.Add(whole[:130])
	path := filepath.Join(f.TempDir(), "fuzz")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := journal.Open(journal.Config{Path: path, Signer: signer()})
		if err != nil {
			return
		}
		defer file.Close()
		records := 0
		for b, err := range file.Blocks() {
			if err != nil {
				break
			}
			records += len(b.Records)
		}
		// Nobody else has the key, and it is in the header, so what verifies is of this key's journals.
		if records > 0 && !bytes.Contains(data[:min(len(data), 200)], signer().Public().(ed25519.PublicKey)) {
			t.Errorf("%d records were read out of something else", records)
		}
	})
}
