package main

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sekisho/internal/pkix"
)

const (
	// listPatience is how long after an answer the lists may still say what was before. It is long because the machine may be
	// busy; the walk reports the slowest.
	listPatience = 10 * time.Second
	// oldLists is how many earlier lists of a shard are kept for the deltas.
	oldLists = 8
)

// walkList is one list that was fetched.
type walkList struct {
	number  int64
	sum     [sha256.Size]byte
	file    string            // PEM
	entries map[string]string // reasons by serial in lower hex
	base    *big.Int
	until   time.Time // nextUpdate
}

// listHistory is what was seen of one list.
type listHistory struct {
	newest *walkList
	old    []*walkList // earlier ones, in order
}

// newest fetches a list and demands that its number did not fall, and that one number is one list.
func (w *walker) newest(path string) *walkList {
	w.t.Helper()
	der, err := fetch(w.p.ready.PKI + path)
	if err != nil {
		w.t.Fatalf("seed %d, step %d: %v\n%s", w.seed, w.step, err, w.p.log)
	}
	h := w.lists[path]
	if h == nil {
		h = &listHistory{}
		w.lists[path] = h
	}
	sum := sha256.Sum256(der)
	if h.newest != nil && h.newest.sum == sum {
		return h.newest
	}
	next := w.readList(path, der)
	next.sum = sum
	if last := h.newest; last != nil {
		if next.number <= last.number {
			w.t.Fatalf("seed %d, step %d: %s: number %d came after number %d, and is another list (%s, %s)",
				w.seed, w.step, path, next.number, last.number, last.file, next.file)
		}
		if last.base != nil && last.base.Cmp(next.base) != 0 {
			w.moved++
		}
		h.old = append(h.old, last)
		if len(h.old) > oldLists { // any of them, so that some stay for long
			at := w.chance.IntN(len(h.old))
			h.old = append(h.old[:at], h.old[at+1:]...)
		}
	}
	h.newest = next
	return next
}

func (w *walker) readList(path string, der []byte) *walkList {
	w.t.Helper()
	parsed, err := x509.ParseRevocationList(der)
	if err != nil {
		w.t.Fatalf("seed %d, step %d: %s: %v", w.seed, w.step, path, err)
	}
	header, err := pkix.ParseCRLHeader(der)
	if err != nil {
		w.t.Fatalf("seed %d, step %d: %s: %v", w.seed, w.step, path, err)
	}
	l := &walkList{number: parsed.Number.Int64(), entries: make(map[string]string), base: header.BaseNumber, until: header.NextUpdate}
	for _, e := range parsed.RevokedCertificateEntries {
		l.entries[fmt.Sprintf("%x", e.SerialNumber)] = pkix.Reason(e.ReasonCode).String()
	}
	l.file = filepath.Join(w.dir, "lists", fmt.Sprintf("%s-%d.pem", strings.ReplaceAll(strings.Trim(path, "/"), "/", "-"), l.number))
	w.write(l.file, string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})))
	return l
}

// delta is where the delta to a shard's list is, and whole where the list of all shards.
func (c *walked) delta() string { return strings.TrimSuffix(c.list, ".crl") + "-delta.crl" }

func (c *walked) whole() string { return filepath.Dir(c.list) + ".crl" }

// says reports whether a full list says of a certificate what the model does. A revoked one that ended may be in it or not.
func (l *walkList) says(c *walked) bool {
	reason, listed := l.entries[strings.TrimLeft(c.serial, "0")]
	return reason == c.reason || !listed && c.ended()
}

// deltaSays reports the same of a delta: of a certificate that ended it alone tells what became of it.
func (l *walkList) deltaSays(c *walked) bool {
	want := c.reason
	if want == "" {
		want = pkix.RemoveFromCRL.String()
	}
	reason, listed := l.entries[strings.TrimLeft(c.serial, "0")]
	return reason == want || !listed
}

// ended reports whether a certificate has ended.
func (c *walked) ended() bool { return !time.Now().Before(c.cert().NotAfter) }

// settle waits until the newest list of a certificate's shard says what the model does, and its delta has the same number.
// The full list and the delta are of one moment: the full list is the same before and after.
func (w *walker) settle(c *walked) (full, delta *walkList) {
	w.t.Helper()
	begin := time.Now()
	for {
		full = w.newest(c.list)
		delta = w.newest(c.delta())
		again := w.newest(c.list)
		if again == full && delta.number != full.number {
			w.fail(c, "list %s has number %d, its delta %s number %d", full.file, full.number, delta.file, delta.number)
		}
		if again == full && full.says(c) && delta.deltaSays(c) {
			w.slowest = max(w.slowest, time.Since(begin))
			return full, delta
		}
		if time.Since(begin) > listPatience {
			w.fail(c, "the list %s does not say %q after %v", full.file, c.reason, listPatience)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// oldList is an earlier list of the shard that is still valid, and nil where there is none. Its number must not be below
// the base of the delta.
func (w *walker) oldList(c *walked, delta *walkList) *walkList {
	w.t.Helper()
	old := slices.DeleteFunc(slices.Clone(w.lists[c.list].old), func(l *walkList) bool { return time.Until(l.until) < endMargin })
	if len(old) == 0 {
		return nil
	}
	l := old[w.chance.IntN(len(old))]
	if delta.base == nil || delta.base.Int64() > l.number {
		w.fail(c, "the base of delta %s is %v, so that the list %s, which is valid, is of no use", delta.file, delta.base, l.file)
	}
	return l
}
