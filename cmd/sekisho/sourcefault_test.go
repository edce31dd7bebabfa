package main

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sekisho/internal/pkix"
	"sekisho/internal/testpki"
	"sekisho/internal/trust"
)

// crlFault is a list that does not count, and how that is told.
type crlFault struct {
	name     string
	serve    fault  // nil: nothing listens there
	says     string // explain
	fetches  string // result in sekisho_revocation_list_fetches_total
	outbound string // result in sekisho_outbound_requests_total
}

// leavesOut is what is said of a list that nothing is wrong with, but that is not about the certificate.
const leavesOut = "leaves this certificate out"

// right is a list that nothing is wrong with.
func right(o *faultyCA) []byte { return o.signed(nil) }

// flipped has another last bit, which is of the signature.
func flipped(der []byte) []byte {
	der = bytes.Clone(der)
	der[len(der)-1] ^= 1
	return der
}

// withEntry is a list of the CA with one entry, octet by octet.
func withEntry(entry []byte) func(o *faultyCA) []byte {
	return func(o *faultyCA) []byte {
		some := o.signed(nil, testpki.Leaf{Cert: o.Cert})
		return resigned(o.t, some, o.Key, func(fields [][]byte) { fields[5] = tlv(0x30, entry) })
	}
}

// date is when entries were revoked.
func date() []byte { return tlv(0x17, []byte("260101000000Z")) }

// transportFaults are those of the way.
func transportFaults() []crlFault {
	return []crlFault{
		{"refuses connections", nil, "connection refused", "failed", "error"},
		{"status 500", answersStatus(http.StatusInternalServerError), "500 Internal Server Error", "failed", "status"},
		{"status 404", answersStatus(http.StatusNotFound), "404 Not Found", "failed", "status"},
		{"body cut off", cutOff(right), "unexpected EOF", "failed", "error"},
		{"endless body", endless, "larger than allowed", "refused", "too_large"},
		{"says it is too large", func(_ *faultyCA, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(64<<20+1))
		}, "at most 67108864", "refused", "too_large"},
		{"empty", answers(func(*faultyCA) []byte { return nil }), "it is empty", "refused", "ok"},
		{"a web page", answers(func(*faultyCA) []byte { return []byte("<!DOCTYPE html><title>Sign in</title>") }), "malformed CRL", "refused", "ok"},
		{"redirect in a circle", func(_ *faultyCA, w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
		}, "redirect refused", "failed", "redirect"},
	}
}

// contentFaults are those of the list.
func contentFaults(stranger *testpki.CA) []crlFault {
	list := func(make func(o *faultyCA) []byte) fault { return answers(make) }
	edited := func(edit func(o *faultyCA, c *pkix.CRLTemplate)) fault {
		return answers(func(o *faultyCA) []byte { return o.signed(func(c *pkix.CRLTemplate) { edit(o, c) }) })
	}
	return []crlFault{
		{"cut off", list(func(o *faultyCA) []byte { der := right(o); return der[:len(der)-9] }), "cut off", "refused", "ok"},
		{"wrong signature", list(func(o *faultyCA) []byte { return flipped(right(o)) }), "signature is wrong", "refused", "ok"},
		{"of another CA", list(func(o *faultyCA) []byte {
			return (&faultyCA{outside: &outside{CA: stranger, t: o.t}}).signed(nil)
		}), "not by one of these CAs: its issuer is CN=Stranger", "refused", "ok"},
		{"of another key under the CA's name", list(func(o *faultyCA) []byte {
			twin := testpki.NewCA(o.t, testpki.Subject(o.Cert.RawSubject))
			return (&faultyCA{outside: &outside{CA: twin, t: o.t}}).signed(nil)
		}), "signature is wrong", "refused", "ok"},
		{"expired", edited(func(_ *faultyCA, c *pkix.CRLTemplate) {
			c.ThisUpdate, c.NextUpdate = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
		}), "nextUpdate has passed", "new", "ok"},
		{"of the future", edited(func(_ *faultyCA, c *pkix.CRLTemplate) { c.ThisUpdate = time.Now().Add(30 * time.Minute) }), "is of the future", "new", "ok"},
		{"delta without its base", edited(func(_ *faultyCA, c *pkix.CRLTemplate) { c.BaseNumber = big.NewInt(5) }), "it is a delta", "refused", "ok"},
		{"for another distribution point", edited(func(_ *faultyCA, c *pkix.CRLTemplate) {
			c.DistributionPoints = []string{"http://elsewhere.example/ca.crl"}
		}), leavesOut, "new", "ok"},
		{"for certificates of CAs", edited(func(_ *faultyCA, c *pkix.CRLTemplate) { c.OnlyCACerts = true }), leavesOut, "new", "ok"},
		{"empty serial number", list(withEntry(tlv(0x30, tlv(0x02), date()))), "the serial number is empty", "refused", "ok"},
		{"unknown critical extension", list(func(o *faultyCA) []byte {
			return resigned(o.t, right(o), o.Key, func(fields [][]byte) {
				last := len(fields) - 1
				fields[last] = tlv(0xa0, tlv(0x30, content(o.t, content(o.t, fields[last])), unknownCritical()))
			})
		}), "unknown critical extension 1.3.6.1.4.1.32473.1", "refused", "ok"},
		{"unknown critical extension of an entry", list(withEntry(tlv(0x30, tlv(0x02, []byte{9}), date(), tlv(0x30, unknownCritical())))), "unknown critical extension", "refused", "ok"},
	}
}

// A list that cannot be had or does not count refuses (hard) or lets in (soft), is told in metrics and explain, and never
// keeps the responder from being asked.
func TestInvariant06CRLFaults(t *testing.T) {
	t.Parallel()
	c := newCheckpoint(t, t.TempDir())
	for _, tc := range slices.Concat(transportFaults(), contentFaults(testpki.NewCA(t, testpki.Name("Stranger")))) {
		t.Run(tc.name, func(t *testing.T) {
			c := c.under(t)
			o := newFaultyCA(t, tc.name)
			url := o.url + "/ca.crl"
			if tc.serve == nil {
				url = nowhere(t) + "/ca.crl"
			}
			o.list.Store(&tc.serve)
			c.trust(o, trust.Policy{})
			alone, good, bad := o.client("alone", url, ""), o.client("good", url, o.url+"/ocsp"), o.client("bad", url, o.url+"/ocsp")
			o.revoke(bad)
			metrics := []string{
				fmt.Sprintf("sekisho_revocation_list_fetches_total{result=%q}", tc.fetches),
				fmt.Sprintf("sekisho_outbound_requests_total{result=%q}", tc.outbound),
				`sekisho_requests_refused_total{reason="revocation_unknown"}`, `sekisho_clients_judged_total{revocation="unknown"}`,
			}
			if tc.says != leavesOut {
				metrics = append(metrics, "sekisho_revocation_list_places_failing")
			}
			raised := c.counting(metrics...)
			c.want(alone, isUnknown, "hard, no other source")
			raised()
			c.explains(alone, trust.CRL, url, tc.says)
			c.want(good, comesIn, "the responder says good")
			c.want(bad, isRevoked, "the responder says revoked")
			c.soften(o)
			c.want(alone, comesIn, "soft")
			c.want(bad, isRevoked, "soft, the responder says revoked")
		})
	}
	c.stop()
}

// under is the same server for a subtest, which its failures are to be put down to.
func (c checkpoint) under(t *testing.T) checkpoint {
	p := *c.process
	p.t = t
	return checkpoint{&p}
}

// oddLists are lists that are strange and count.
func oddLists(bad testpki.Leaf) map[string]fault {
	entry := func(serial []byte) []byte { return tlv(0x30, tlv(0x02, serial), date()) }
	number := bad.Cert.SerialNumber.Bytes()
	if number[0] >= 0x80 {
		number = append([]byte{0}, number...)
	}
	return map[string]fault{
		"negative serial number": answers(withEntry(slices.Concat(entry([]byte{0x81}), entry(number)))),
		"serial number 0":        answers(withEntry(slices.Concat(entry([]byte{0}), entry(number)))),
		"unsorted and double":    answers(withEntry(slices.Concat(entry([]byte{9}), entry(number), entry([]byte{3}), entry(number), entry([]byte{9})))),
		"PEM": answers(func(o *faultyCA) []byte {
			return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: o.signed(nil, bad)})
		}),
		"no nextUpdate": answers(func(o *faultyCA) []byte {
			return resigned(o.t, o.signed(nil, bad), o.Key, func(fields [][]byte) { fields[4] = nil })
		}),
		"delta out of reach": answers(func(o *faultyCA) []byte {
			return o.signed(func(c *pkix.CRLTemplate) { c.FreshestCRL = []string{nowhere(o.t) + "/delta.crl"} }, bad)
		}),
		"delta to a later list":     withDelta(bad, func(c *pkix.CRLTemplate) { c.Number, c.BaseNumber = big.NewInt(9), big.NewInt(7) }),
		"delta of another scope":    withDelta(bad, func(c *pkix.CRLTemplate) { c.BaseNumber, c.OnlyUserCerts = big.NewInt(6), true }),
		"complete list for a delta": withDelta(bad, func(*pkix.CRLTemplate) {}),
		"delta older than the list": withDelta(bad, func(c *pkix.CRLTemplate) { c.Number, c.BaseNumber = big.NewInt(5), big.NewInt(4) }),
		"delta that has run out too": withDelta(bad, func(c *pkix.CRLTemplate) {
			c.BaseNumber, c.ThisUpdate, c.NextUpdate = big.NewInt(6), time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
		}),
	}
}

// withDelta serves a list, and a delta to it.
func withDelta(bad testpki.Leaf, edit func(*pkix.CRLTemplate)) fault {
	return func(o *faultyCA, w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/delta.crl" {
			_, _ = w.Write(o.signed(edit))
			return
		}
		_, _ = w.Write(o.signed(func(c *pkix.CRLTemplate) { c.FreshestCRL = []string{o.url + "/delta.crl"} }, bad))
	}
}

// What is odd about a list, or wrong with its delta alone, takes nothing from what the list says; explain tells of the delta.
func TestInvariant06OddCRLsCount(t *testing.T) {
	t.Parallel()
	c := newCheckpoint(t, t.TempDir())
	says := map[string]string{
		"delta out of reach": "delta: ", "delta to a later list": "it needs list 7 or later, and the list is 6", "delta of another scope": "the delta has another scope",
		"complete list for a delta": "it is a complete list", "delta that has run out too": "delta: the list's nextUpdate has passed",
	}
	for name := range oddLists(testpki.NewCA(t).Client("any")) {
		t.Run(name, func(t *testing.T) {
			c := c.under(t)
			o := newFaultyCA(t, name)
			c.trust(o, trust.Policy{})
			good, bad := o.client("good", o.url+"/ca.crl", ""), o.client("bad", o.url+"/ca.crl", "")
			odd := oddLists(bad)[name]
			o.list.Store(&odd)
			c.want(good, comesIn, "not on the list")
			c.want(bad, isRevoked, "on the list")
			answer, problem, _, _ := source(c.explain(good), trust.CRL)
			if answer != "good" || !strings.Contains(problem, says[name]) || says[name] == "" && problem != "" {
				t.Errorf("explain: %q with error %q, want good with %q", answer, problem, says[name])
			}
		})
	}
	c.stop()
}

// kept is a CA whose list number 5, which revokes one of its clients, was in force when the next one went wrong.
type kept struct {
	*faultyCA
	place     string
	good, bad testpki.Leaf
	says      string // explain, of the fault
}

// five is the list that is to stay in force.
func (k *kept) five() []byte {
	return k.signed(func(c *pkix.CRLTemplate) { c.Number = big.NewInt(5) }, k.bad)
}

// seven is the one that is right again, and revokes the other client, too.
func (k *kept) seven() []byte {
	return k.signed(func(c *pkix.CRLTemplate) { c.Number, c.ThisUpdate = big.NewInt(7), time.Now() }, k.bad, k.good)
}

// stays demands that the fault was seen and told, and that list 5 is still what the edge goes by.
func (c checkpoint) stays(k *kept) {
	c.t.Helper()
	c.eventually(k.name+": explain tells of the fault", func() bool {
		_, problem, _, _ := source(c.explain(k.good), trust.CRL)
		return strings.Contains(problem, k.says)
	})
	answer, problem, address, number := source(c.explain(k.good), trust.CRL)
	if answer != "good" || address != k.place || number != "5" {
		c.t.Errorf("%s: explain says %s by list %q of %q (%s), want good by 5 of %q", k.name, answer, number, address, problem, k.place)
	}
	c.want(k.good, comesIn, k.name+", not on the last good list")
	c.want(k.bad, isRevoked, k.name+", on the last good list")
	c.eventually(k.name+": the log tells of "+k.place, func() bool { return strings.Contains(c.log.String(), k.place) })
}

// recovers demands that list 7 comes into force.
func (c checkpoint) recovers(k *kept) {
	c.t.Helper()
	c.eventually(k.name+": the corrected list is in force", func() bool { return c.ask(k.good) == isRevoked })
	if _, problem, _, number := source(c.explain(k.good), trust.CRL); problem != "" || number != "7" {
		c.t.Errorf("%s: explain says %q by list %s after the correction, want nothing by 7", k.name, problem, number)
	}
}

// failing waits until so many places fail: a list is in force a moment before its place counts as well again.
func (c checkpoint) failing(n int) {
	c.t.Helper()
	c.eventually(fmt.Sprintf("%d places are failing", n), func() bool { return c.count("sekisho_revocation_list_places_failing") == n })
}

// newerFaults are what may come from where a good list came from, and must not take its place.
func newerFaults(t *testing.T) []crlFault {
	edited := func(edit func(*pkix.CRLTemplate)) fault {
		return answers(func(o *faultyCA) []byte { return o.signed(edit) })
	}
	faults := []crlFault{
		{name: "older number", serve: edited(func(c *pkix.CRLTemplate) { c.Number = big.NewInt(4) }), says: "older than the one in force: number 4"},
		{name: "same number, earlier", serve: edited(func(c *pkix.CRLTemplate) {
			c.Number, c.ThisUpdate = big.NewInt(5), time.Now().Add(-time.Hour)
		}), says: "older than the one in force: number 5"},
	}
	for _, f := range slices.Concat(transportFaults(), contentFaults(testpki.NewCA(t, testpki.Name("Stranger")))) {
		switch {
		case f.serve == nil, f.name == "expired", f.name == "of the future":
			continue // a port cannot be given back; and these two are the CA's newest word all the same
		case f.fetches == "new": // truly signed by the CA, and about other certificates
			f.says = "cannot follow the one in force"
		}
		faults = append(faults, f)
	}
	return faults
}

// A list that is fetched and is not good leaves the one before in force, loudly, until a right one comes. The policy is
// soft: were the list before forgotten, who is on it would come in.
func TestInvariant06LastGoodCRLStays(t *testing.T) {
	t.Parallel()
	c := newCheckpoint(t, t.TempDir())
	faults := newerFaults(t)
	var all []*kept
	for _, f := range faults {
		all = append(all, c.keeps(newFaultyCA(t, f.name), f.says))
	}
	root := testpki.NewCA(t, testpki.Name("root above"))
	sub := newFaultyCA(t, "another CA of the path")
	sub.CA = root.Intermediate("below")
	sub.PEM = root.PEM
	all = append(all, c.keeps(sub, "it is by CN=root above, not by CN=below"))
	faults = append(faults, crlFault{serve: answers(func(*faultyCA) []byte { return (&faultyCA{outside: &outside{CA: root, t: t}}).signed(nil) })})
	raised := c.counting(`sekisho_revocation_list_fetches_total{result="refused"}`, `sekisho_revocation_list_fetches_total{result="failed"}`)
	for i, k := range all {
		k.list.Store(&faults[i].serve)
	}
	for _, k := range all {
		c.stays(k)
	}
	raised()
	c.failing(len(all))
	for _, k := range all {
		seven := k.seven()
		corrected := answers(func(*faultyCA) []byte { return seven })
		k.list.Store(&corrected)
	}
	for _, k := range all {
		c.recovers(k)
	}
	c.failing(0)
	c.stop()
}

// keeps trusts a CA whose list number 5 comes into force.
func (c checkpoint) keeps(o *faultyCA, says string) *kept {
	c.t.Helper()
	k := &kept{faultyCA: o, place: o.url + "/ca.crl", says: says}
	k.good, k.bad = k.client("good", k.place, ""), k.client("bad", k.place, "")
	five := k.five()
	first := answers(func(*faultyCA) []byte { return five })
	k.list.Store(&first)
	c.trust(k.faultyCA, trust.Policy{Refresh: time.Second, OnFailure: trust.Soft})
	c.want(k.good, comesIn, k.name+", at first")
	c.want(k.bad, isRevoked, k.name+", at first")
	return k
}

// fileFault does something to a file with a list in force, and to nothing else.
type fileFault struct {
	name string
	do   func(k *kept) error
	says string
}

func fileFaults(stranger *testpki.CA) []fileFault {
	write := func(make func(k *kept) []byte) func(*kept) error {
		return func(k *kept) error { return os.WriteFile(k.place, make(k), 0o600) } // over what is there
	}
	renamed := func(make func(k *kept) []byte) func(*kept) error {
		return func(k *kept) error { inPlace(k.t, k.place, make(k)); return nil }
	}
	instead := func(other func(path string) error) func(*kept) error {
		return func(k *kept) error { return errors.Join(os.Remove(k.place), other(k.place)) }
	}
	return []fileFault{
		{"half written", write(func(k *kept) []byte { der := k.seven(); return der[:len(der)/2] }), "cut off"},
		{"renamed, half of it", renamed(func(k *kept) []byte { der := k.seven(); return der[:len(der)/2] }), "cut off"},
		{"truncated in place", func(k *kept) error { return os.Truncate(k.place, 100) }, "cut off"},
		{"emptied in place", func(k *kept) error { return os.Truncate(k.place, 0) }, "it is empty"},
		{"overwritten with zeros", write(func(k *kept) []byte { return make([]byte, len(k.five())) }), "malformed CRL"},
		{"deleted", func(k *kept) error { return os.Remove(k.place) }, "no such file"},
		{"a directory instead", instead(func(path string) error { return os.Mkdir(path, 0o700) }), "is no regular file"},
		{"a pipe instead", instead(func(path string) error { return syscall.Mkfifo(path, 0o600) }), "is no regular file"},
		{"older", renamed(func(k *kept) []byte { return k.signed(func(c *pkix.CRLTemplate) { c.Number = big.NewInt(4) }) }), "older than the one in force"},
		{"wrong signature", renamed(func(k *kept) []byte { return flipped(k.seven()) }), "signature is wrong"},
		{"of another CA", renamed(func(k *kept) []byte {
			return (&faultyCA{outside: &outside{CA: stranger, t: k.t}}).signed(nil)
		}), "not by one of these CAs"},
		{"certificate instead", renamed(func(k *kept) []byte { return k.PEM }), "malformed CRL"},
	}
}

// Whatever happens to the file of a list in force, what was read of it stays in force, loudly, until there is a right one.
func TestInvariant06CRLFiles(t *testing.T) {
	t.Parallel()
	c := newCheckpoint(t, t.TempDir())
	var all []*kept
	faults := fileFaults(testpki.NewCA(t, testpki.Name("Stranger")))
	for _, f := range faults {
		k := &kept{faultyCA: newFaultyCA(t, f.name), place: filepath.Join(t.TempDir(), "ca.crl"), says: f.says}
		k.good, k.bad = k.client("good", "", ""), k.client("bad", "", "")
		inPlace(t, k.place, k.five())
		c.trust(k.faultyCA, trust.Policy{CRLs: []string{k.place}})
		c.want(k.good, comesIn, f.name+", at first")
		c.want(k.bad, isRevoked, f.name+", at first")
		all = append(all, k)
	}
	raised := c.counting(`sekisho_revocation_list_fetches_total{result="refused"}`, `sekisho_revocation_list_fetches_total{result="failed"}`)
	for i, k := range all {
		if err := faults[i].do(k); err != nil {
			t.Fatalf("%s: %v", k.name, err)
		}
	}
	for _, k := range all {
		c.stays(k)
	}
	raised()
	c.failing(len(all))
	for _, k := range all {
		if info, err := os.Stat(k.place); err == nil && !info.Mode().IsRegular() {
			if err := os.Remove(k.place); err != nil {
				t.Fatal(err)
			}
		}
		inPlace(t, k.place, k.seven())
	}
	for _, k := range all {
		c.recovers(k)
	}
	c.stop()
}

// A server that starts while the sources are down goes by the copies that the one before kept, also of a list that has run
// out since: who is on it stays out. A list in the configuration that was never there refuses its CA's clients and nobody else's.
func TestInvariant06RestartWithSourcesDown(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := newCheckpoint(t, dir)
	fresh, ending, missing, other := newFaultyCA(t, "fresh"), newFaultyCA(t, "ending"), newFaultyCA(t, "missing"), newFaultyCA(t, "other")
	clients := map[*faultyCA][2]testpki.Leaf{}
	end := time.Now().Add(10 * time.Second).Truncate(time.Second) // the list must come into force before, however slow the machine
	for _, o := range []*faultyCA{fresh, ending} {
		clients[o] = [2]testpki.Leaf{o.client("good", o.url+"/ca.crl", ""), o.client("bad", o.url+"/ca.crl", "")}
		list := answers(func(o *faultyCA) []byte {
			return o.signed(func(c *pkix.CRLTemplate) {
				if o == ending {
					c.NextUpdate = end
				}
			}, clients[o][1])
		})
		o.list.Store(&list)
		c.trust(o, trust.Policy{})
		c.want(clients[o][0], comesIn, o.name+", before the restart")
		c.want(clients[o][1], isRevoked, o.name+", before the restart")
	}
	nothing := filepath.Join(t.TempDir(), "nothing.crl")
	lost, plain := missing.client("lost", "", ""), other.client("plain", "", "")
	c.trust(missing, trust.Policy{CRLs: []string{nothing, nowhere(t) + "/ca.crl"}})
	c.trust(other, trust.Policy{})
	c.kill()
	down := answersStatus(http.StatusBadGateway)
	fresh.list.Store(&down)
	ending.list.Store(&down)
	time.Sleep(time.Until(end.Add(time.Second)))

	c = newCheckpoint(t, dir)
	c.want(clients[fresh][1], isRevoked, "restarted, on the copy")
	c.want(clients[fresh][0], comesIn, "restarted, not on the copy")
	c.want(clients[ending][1], isRevoked, "restarted, on a copy that has run out")
	c.want(clients[ending][0], isUnknown, "restarted, not on a copy that has run out")
	c.explains(clients[ending][0], trust.CRL, ending.url+"/ca.crl", "nextUpdate has passed", "502 Bad Gateway")
	c.want(lost, isUnknown, "the configured lists were never there")
	c.explains(lost, trust.CRL, nothing, "no such file")
	c.want(plain, comesIn, "a client of another CA")
	c.soften(ending)
	c.want(clients[ending][0], comesIn, "soft")
	c.want(clients[ending][1], isRevoked, "soft, on a copy that has run out")
	c.stop()
}

// stall has the list or the responder of a CA never answer before it is let go; then there is a right list.
func (o *faultyCA) stall(at *atomic.Pointer[fault]) (letGo func()) {
	gone := make(chan struct{})
	wait := fault(func(o *faultyCA, w http.ResponseWriter, r *http.Request) {
		select {
		case <-gone:
			_, _ = w.Write(right(o))
		case <-r.Context().Done():
		}
	})
	letGo = sync.OnceFunc(func() { close(gone) })
	o.t.Cleanup(letGo) // before the server is closed, which waits for this
	at.Store(&wait)
	return letGo
}

// patient is a client, and what its first request is to come to: at once, or after the five seconds that the edge waits.
type patient struct {
	name    string
	leaf    testpki.Leaf
	verdict string
	waits   bool
	client  *http.Client
	got     string
	took    time.Duration
	err     error
}

// askAll asks for all of them at the same time.
func (c checkpoint) askAll(all []*patient) {
	c.t.Helper()
	crowded := crowding(c.t)
	var group sync.WaitGroup
	for _, p := range all {
		p.client = c.client(p.leaf.TLS())
		group.Go(func() {
			begin := time.Now()
			p.got, p.err = c.askOn(p.client)
			p.took = time.Since(begin)
		})
	}
	group.Wait()
	for _, p := range all {
		c.t.Logf("%s: %s after %v", p.name, p.got, p.took.Round(time.Millisecond))
		if p.err != nil || p.got != p.verdict {
			c.t.Errorf("%s: %s %v, want %s", p.name, p.got, p.err, p.verdict)
		}
		const least, most = 4900 * time.Millisecond, 9 * time.Second
		if p.waits != (p.took >= least) {
			c.t.Errorf("%s: answered after %v; is it to wait five seconds: %v", p.name, p.took, p.waits)
		}
		within(c.t, p.name, p.took, most, crowded)
	}
}

// A client waits five seconds for sources that never answer, and not at all where another one does. A source that answers
// later counts for the connection that is there.
func TestInvariant06SlowSources(t *testing.T) {
	t.Parallel()
	c := newCheckpoint(t, t.TempDir())
	list, soft, responder := newFaultyCA(t, "slow list"), newFaultyCA(t, "slow list, soft"), newFaultyCA(t, "slow responder")
	letGo := list.stall(&list.list)
	soft.stall(&soft.list)
	responder.stall(&responder.responder)
	c.trust(list, trust.Policy{})
	c.trust(soft, trust.Policy{OnFailure: trust.Soft})
	c.trust(responder, trust.Policy{})
	// A host is asked four things at once, and four will stall. By another name it is another host.
	quick := func(o *faultyCA) string { return strings.Replace(o.url, "127.0.0.1", "localhost", 1) }
	bad := list.client("bad", list.url+"/ca.crl", quick(list)+"/ocsp")
	list.revoke(bad)
	listed := responder.client("listed", quick(responder)+"/ca.crl", responder.url+"/ocsp")
	responder.revoke(listed)
	all := []*patient{
		{name: "the list alone", leaf: list.client("alone", list.url+"/ca.crl", ""), verdict: isUnknown, waits: true},
		{name: "the list alone, soft", leaf: soft.client("alone", soft.url+"/ca.crl", ""), verdict: comesIn, waits: true},
		{name: "the responder alone", leaf: responder.client("alone", "", responder.url+"/ocsp"), verdict: isUnknown, waits: true},
		{name: "the list, and a responder says good", leaf: list.client("good", list.url+"/ca.crl", quick(list)+"/ocsp"), verdict: comesIn},
		{name: "the list, and a responder says revoked", leaf: bad, verdict: isRevoked},
		{name: "the responder, and a list says revoked", leaf: listed, verdict: isRevoked},
	}
	raised := c.counting(`sekisho_requests_refused_total{reason="revocation_unknown"}`)
	timeouts := c.count(`sekisho_outbound_requests_total{result="timeout"}`)
	c.askAll(all)
	raised()
	c.explains(all[0].leaf, trust.CRL, list.url+"/ca.crl", "has not answered so far")
	letGo()
	c.eventually("the late list lets the connection in", func() bool {
		got, err := c.askOn(all[0].client)
		return err == nil && got == comesIn
	})
	c.eventually("the others have run out of time", func() bool {
		return c.count(`sekisho_outbound_requests_total{result="timeout"}`) >= timeouts+3
	})
	c.explains(all[1].leaf, trust.CRL, soft.url+"/ca.crl", "timeout")
	c.explains(all[2].leaf, trust.OCSP, responder.url+"/ocsp", "timeout")
	for _, p := range all {
		p.client.CloseIdleConnections()
	}
	c.stop()
}
