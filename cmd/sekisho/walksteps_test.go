package main

import (
	"context"
	"crypto"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
)

// card is a kind of step. play makes it and returns the certificates that it touched; nil where nothing fits, and then
// another is issued.
type card struct {
	name               string
	copies, longCopies int // in a deck
	play               func(w *walker) []*walked
}

// walkCards are the kinds of steps there are. Those of commands that this program does not have are left out.
func walkCards() []card {
	cards := []card{
		{"issue", 12, 60, (*walker).issue},
		{"hold", 10, 50, (*walker).hold},
		{"reactivate", 7, 35, (*walker).reactivate},
		{"revoke", 5, 24, (*walker).revoke},
		{"refused", 6, 20, (*walker).refused},
		{"compromised after all", 1, 3, (*walker).compromised},
		{"blocked key", 1, 2, (*walker).blockedKey},
		{"expire", 1, 1, (*walker).expire},
		{"restart", 1, 2, func(w *walker) []*walked { return w.restart(false) }},
		{"kill -9", 1, 1, func(w *walker) []*walked { return w.restart(true) }},
	}
	if hasCommand("store", "verify") {
		cards = append(cards, card{"copy the database", 1, 1, (*walker).copyDatabase}, card{"put a copy back", 1, 1, (*walker).putBack})
	}
	if hasCommand("ca", "rotate") {
		cards = append(cards, card{"rotate", 1, 1, (*walker).rotate})
	}
	return cards
}

// hasCommand reports whether the program has a command.
func hasCommand(path ...string) bool {
	root := newRoot(env{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard, getenv: os.Getenv})
	found, rest, err := root.Find(path)
	return err == nil && len(rest) == 0 && found.Name() == path[len(path)-1]
}

// deal makes the next step of a shuffled deck, so that the rare kinds come as often as they should.
func (w *walker) deal() []*walked {
	if len(w.deck) == 0 {
		for _, c := range w.cards {
			n := c.copies
			if long() {
				n = c.longCopies
			}
			w.deck = append(w.deck, slices.Repeat([]card{c}, n)...)
		}
		w.dice.Shuffle(len(w.deck), func(i, j int) { w.deck[i], w.deck[j] = w.deck[j], w.deck[i] })
	}
	next := w.deck[0]
	w.deck = w.deck[1:]
	touched := next.play(w)
	if touched == nil {
		next = w.cards[0]
		touched = next.play(w)
	}
	w.count[next.name]++
	return touched
}

// issue makes a certificate, now and then for the key of another one.
func (w *walker) issue() []*walked {
	csr, key := w.request()
	if other := w.pick(func(c *walked) bool { return c.active() && !w.blocked(c.csr) }); other != nil && w.dice.IntN(5) == 0 {
		csr, key = other.csr, other.pair.PrivateKey.(crypto.Signer)
	}
	status, env := w.p.api("POST", w.p.certificates(), map[string]any{"csr": csr, "validity_days": 30})
	var row clientCertificate
	if err := json.Unmarshal(env.Result, &row); err != nil || status != http.StatusOK {
		w.t.Fatalf("seed %d, step %d: issue: %d %+v %v", w.seed, w.step, status, env.Errors, err)
	}
	c := w.adopt(row, keyPair(w.t, []byte(row.Certificate), key), csr)
	w.note(c, "issued")
	return []*walked{c}
}

// blocked reports whether a key was compromised.
func (w *walker) blocked(csr string) bool {
	return slices.ContainsFunc(w.certs, func(c *walked) bool { return c.csr == csr && c.reason == pkix.KeyCompromise.String() })
}

func (w *walker) request() (csr string, key crypto.Signer) {
	w.t.Helper()
	text, key, err := makeCSR(issueFlags{subject: fmt.Sprintf("CN=walker %d", w.step), keyType: "ecdsa-p256"})
	if err != nil {
		w.t.Fatal(err)
	}
	return string(text), key
}

func (w *walker) path(c *walked) string { return w.p.certificates() + "/" + c.id }

func (w *walker) hold() []*walked {
	c := w.known((*walked).active)
	if c == nil {
		return nil
	}
	w.call(c, http.StatusOK, "DELETE", w.path(c), nil)
	w.became(c, "certificateHold")
	return []*walked{c}
}

func (w *walker) reactivate() []*walked {
	c := w.known((*walked).onHold)
	if c == nil {
		return nil
	}
	w.call(c, http.StatusOK, "PATCH", w.path(c), map[string]bool{"reactivate": true})
	w.became(c, "")
	return []*walked{c}
}

// became is a transition in the model.
func (w *walker) became(c *walked, reason string) {
	c.reason, c.changed = reason, true
	w.note(c, "became %q", reason)
}

// revoke revokes what is active or on hold for good.
func (w *walker) revoke() []*walked {
	c := w.known(func(c *walked) bool { return !c.final() })
	if c == nil {
		return nil
	}
	reasons := slices.DeleteFunc(pkix.Reasons(), func(r pkix.Reason) bool { return r == pkix.CertificateHold || r == pkix.RemoveFromCRL })
	return w.revokeFor(c, reasons[w.dice.IntN(len(reasons))].String())
}

// revokeFor revokes a certificate. A compromised key takes every other certificate of it that is not revoked for good.
func (w *walker) revokeFor(c *walked, reason string) []*walked {
	w.call(c, http.StatusOK, "DELETE", w.path(c)+"?reason="+reason, nil)
	touched := []*walked{c}
	w.became(c, reason)
	for _, other := range w.certs {
		if reason == pkix.KeyCompromise.String() && other != c && other.csr == c.csr && !other.lost && !other.final() {
			w.became(other, reason)
			touched = append(touched, other)
		}
	}
	return touched
}

// refused asks for what the state of a certificate does not allow.
func (w *walker) refused() []*walked {
	c := w.known(func(*walked) bool { return true })
	if c == nil {
		return nil
	}
	hold := func() { w.call(c, http.StatusBadRequest, "DELETE", w.path(c), nil) }
	reactivate := func() { w.call(c, http.StatusBadRequest, "PATCH", w.path(c), map[string]bool{"reactivate": true}) }
	switch {
	case c.active():
		reactivate()
	case c.onHold():
		hold()
	case w.dice.IntN(2) == 0:
		reactivate()
	case w.dice.IntN(2) == 0:
		hold()
	default:
		w.call(c, http.StatusBadRequest, "DELETE", w.path(c)+"?reason=superseded", nil)
	}
	w.note(c, "refused to leave %q", c.reason)
	return []*walked{c}
}

// compromised gives a certificate that is revoked for good the one other reason that it may get.
func (w *walker) compromised() []*walked {
	c := w.known(func(c *walked) bool { return c.final() && c.reason != pkix.KeyCompromise.String() })
	if c == nil {
		return nil
	}
	return w.revokeFor(c, pkix.KeyCompromise.String())
}

// blockedKey asks for another certificate of a compromised key, and gets none.
func (w *walker) blockedKey() []*walked {
	c := w.known(func(c *walked) bool { return c.reason == pkix.KeyCompromise.String() })
	if c == nil {
		return nil
	}
	w.call(c, http.StatusBadRequest, "POST", w.p.certificates(), map[string]any{"csr": c.csr, "validity_days": 30})
	w.note(c, "another of its key was refused")
	return []*walked{c}
}

// restart ends the server and starts it again. Meanwhile a certificate is issued that ends in a few seconds: the API
// gives none for less than a day.
func (w *walker) restart(kill bool) []*walked {
	w.end(kill)
	row, csr, key := w.issueOffline(6 * time.Second)
	w.start()
	c := w.adopt(row, keyPair(w.t, []byte(row.Certificate), key), csr)
	c.shortLived = true
	w.note(c, "issued while no server ran")
	return []*walked{c}
}

// issueOffline issues on the data directory, as the commands do when no server runs.
func (w *walker) issueOffline(life time.Duration) (row clientCertificate, csr string, key crypto.Signer) {
	w.t.Helper()
	ctx, logger := w.t.Context(), slog.New(slog.DiscardHandler)
	cfg := Config{Data: w.data, PKI: PKIConfig{URL: walkPKI, Shards: walkShards}}.withDefaults()
	h, err := openHouse(ctx, cfg, logger)
	if err != nil {
		w.t.Fatalf("seed %d, step %d: %v", w.seed, w.step, err)
	}
	defer func() {
		if err := h.close(); err != nil {
			w.t.Error(err)
		}
	}()
	csr, key = w.request()
	var issued ca.Certificate
	if err = h.openCA(ctx, cfg.PKI, nil); err == nil {
		issued, err = w.issueIn(ctx, h, csr, life)
	}
	if err != nil {
		w.t.Fatalf("seed %d, step %d: %v", w.seed, w.step, err)
	}
	return clientCertificate{ID: issued.ID, Serial: issued.Serial.String(), Certificate: string(pkix.EncodeCertificate(issued.DER))}, csr, key
}

func (w *walker) issueIn(ctx context.Context, h *house, csr string, life time.Duration) (ca.Certificate, error) {
	return h.authority.Issue(ctx, ca.IssueRequest{
		ZoneID: w.p.ready.ZoneID, Profile: ca.ProfileClient, Actor: "walk", CSR: []byte(csr), NotAfter: time.Now().Add(life),
	})
}

// expire waits for the end of a certificate.
func (w *walker) expire() []*walked {
	var c *walked
	for _, candidate := range w.certs {
		if candidate.shortLived && !candidate.lost && !slices.ContainsFunc(candidate.history, func(s string) bool { return strings.HasSuffix(s, "has ended") }) {
			c = candidate
		}
	}
	if c == nil {
		return nil
	}
	waitUntil(w.t, "a certificate ends", func() bool { return time.Now().After(c.cert().NotAfter) })
	w.note(c, "has ended")
	return []*walked{c}
}

// copyDatabase makes a copy as a backup of a stopped server would.
func (w *walker) copyDatabase() []*walked {
	w.end(false)
	to := walkCopy{path: filepath.Join(w.dir, "copies", fmt.Sprintf("%d.db", w.step)), knows: make(map[string]bool)}
	w.copyFile(filepath.Join(w.data, "sekisho.db"), to.path)
	for _, c := range w.certs {
		to.knows[c.id] = !c.lost
		w.note(c, "copied")
	}
	w.copies = append(w.copies, to)
	w.start()
	return w.some()
}

// putBack puts a copy in the place of the database. What was revoked, put on hold or reactivated since then is in the
// journal; what was issued since then and never touched is known to nobody any more.
func (w *walker) putBack() []*walked {
	if len(w.copies) == 0 {
		return nil
	}
	from := w.copies[w.dice.IntN(len(w.copies))]
	w.end(w.dice.IntN(2) == 0)
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(filepath.Join(w.data, "sekisho.db"+suffix)); err != nil && !os.IsNotExist(err) {
			w.t.Fatal(err)
		}
	}
	w.copyFile(from.path, filepath.Join(w.data, "sekisho.db"))
	touched := []*walked{}
	for _, c := range w.certs {
		was := c.lost
		c.lost = !from.knows[c.id] && !c.changed
		w.note(c, "the copy of %s was put back; lost: %v", filepath.Base(from.path), c.lost)
		if c.lost != was && len(touched) < 3 {
			touched = append(touched, c)
		}
	}
	w.start()
	return append(touched, w.some()...)
}

// some are two certificates for the judges after a step that touches all of them: one revoked, one not.
func (w *walker) some() []*walked {
	touched := []*walked{}
	for _, fits := range []func(*walked) bool{(*walked).active, func(c *walked) bool { return !c.active() }} {
		if c := w.pick(fits); c != nil {
			touched = append(touched, c)
		}
	}
	return touched
}

func (w *walker) copyFile(from, to string) {
	w.t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o600)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// maxRotations bounds how many CAs the walk makes: each has lists and a responder's certificate of its own.
const maxRotations = 6

// rotate puts a new issuing CA in force, and a new root every third time. No connection is cut.
func (w *walker) rotate() []*walked {
	if w.count["rotate"] >= maxRotations {
		return nil
	}
	body := map[string]any{"root": w.count["rotate"]%3 == 2}
	if status, env := w.p.api("POST", "/sekisho/ca/rotate", body); status != http.StatusOK {
		w.t.Fatalf("seed %d, step %d: rotate: %d %+v", w.seed, w.step, status, env.Errors)
	}
	w.learnCAs()
	for _, c := range w.certs {
		w.note(c, "the CA was rotated")
	}
	return append(w.issue(), w.some()...)
}
