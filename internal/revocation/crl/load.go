package crl

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"slices"

	"sekisho/internal/pkix"
)

// DefaultMaxBytes is the limit of a list unless Options says otherwise, and the highest there may be.
const DefaultMaxBytes = pkix.MaxCRLBytes

// Options says how a list is loaded. Issuer or Issuers are required.
type Options struct {
	Issuer   *x509.Certificate           // the CA that must have signed
	Issuers  []*x509.Certificate         // more CAs, one of which must have: chosen by name, key identifier and signature
	Allows   func(algorithm string) bool // signature algorithms taken; nil: those of the zero trust.Policy
	MaxBytes int64                       // 0: DefaultMaxBytes
	Dir      string                      // where our copy is; "": in memory
}

// Load reads one list, complete or delta, in DER or PEM, checks who signed it, and builds its index. What r gives is
// copied first: nobody can change what was checked. The error is one of those above, of reading, or of
// [pkix.ErrCRLMalformed] and [pkix.ErrCRLCritical].
func Load(r io.Reader, o Options) (*List, error) {
	b, err := readBody(r, o.Dir, o.limit())
	if err != nil {
		return nil, err
	}
	return o.load(b)
}

// open is Load for a list that was kept under a name in Options.Dir.
func open(name string, o Options) (*List, error) {
	b, err := openBody(o.Dir, name, o.limit())
	if err != nil {
		return nil, err
	}
	return o.load(b)
}

func (o Options) limit() int64 { return min(cmp.Or(o.MaxBytes, DefaultMaxBytes), DefaultMaxBytes) }

func (o Options) load(b *body) (*List, error) {
	p := &part{body: b}
	before := debug.SetPanicOnFault(b.mapped)
	err := o.check(p)
	debug.SetPanicOnFault(before)
	if b.mapped {
		rest(b.der)
	}
	runtime.KeepAlive(b)
	if err != nil {
		if b.file != nil {
			b.file.forget() // now, not when the collector finds it
		}
		return nil, err
	}
	return &List{base: p}, nil
}

// check reads the body from beginning to end. The signature is checked beside the walk through the entries, for the
// digest of a large list takes as long as the walk does.
func (o Options) check(p *part) (err error) {
	defer func() {
		if e := fault(recover()); e != nil {
			err = e
		}
	}()
	c, err := pkix.ParseCRLHeader(p.body.der)
	if err != nil {
		return err
	}
	c.SkipNegative = true // one odd entry must not make the rest of the list useless
	p.crl = c
	p.describe()
	switch {
	case p.algorithm == "":
		return fmt.Errorf("%w: it is unknown", ErrAlgorithm)
	case !takes(o.Allows, p.algorithm):
		return fmt.Errorf("%w: %s", ErrAlgorithm, p.algorithm)
	}
	signers, err := o.signers(c)
	if err != nil {
		return err
	}
	if p.indirect() { // its index takes more work, which only a CA that is trusted may ask for
		p.issuer, err = signer(c, signers)
		if err == nil {
			err = p.build()
		}
		return err
	}
	checked := make(chan error, 1)
	go func() { checked <- p.checkSigner(signers) }()
	err = p.build()
	return cmp.Or(<-checked, err) // who signed it is asked first: a malformed list of somebody else's is somebody else's
}

// checkSigner finds the issuer. It runs on a goroutine of its own.
func (p *part) checkSigner(signers []*x509.Certificate) (err error) {
	debug.SetPanicOnFault(p.body.mapped)
	defer func() {
		if e := fault(recover()); e != nil {
			err = e
		}
	}()
	p.issuer, err = signer(p.crl, signers)
	return err
}

// maxSigners bounds the signatures that are checked for one list.
const maxSigners = 8

// signer returns the first of the certificates whose key signed the list.
func signer(c *pkix.CRL, signers []*x509.Certificate) (*x509.Certificate, error) {
	var refusal error
	for _, cert := range signers {
		err := c.CheckSignature(cert.PublicKey)
		if err == nil {
			return cert, nil
		}
		refusal = cmp.Or(refusal, err)
	}
	return nil, fmt.Errorf("%w: %w", ErrSignature, refusal)
}

// signers are the candidates that may have signed, the likeliest first, each key once. RFC 5280, Section 6.3.3 (f) and
// (g): the name is that of the list's issuer, and a key usage must allow cRLSign.
func (o Options) signers(c *pkix.CRL) ([]*x509.Certificate, error) {
	all := o.Issuers
	if o.Issuer != nil {
		all = append([]*x509.Certificate{o.Issuer}, all...)
	}
	var likely, other []*x509.Certificate
	var named, unfit bool
	for _, cert := range all {
		if !pkix.SameName(cert.RawSubject, c.RawIssuer) {
			continue
		}
		named = true
		switch {
		case !maySignLists(cert):
			unfit = true
		case slices.ContainsFunc(append(likely, other...), func(have *x509.Certificate) bool {
			return bytes.Equal(have.RawSubjectPublicKeyInfo, cert.RawSubjectPublicKeyInfo)
		}):
		case c.AuthorityKeyID == nil || bytes.Equal(c.AuthorityKeyID, pkix.SKI(cert)):
			likely = append(likely, cert)
		default:
			other = append(other, cert)
		}
	}
	found := append(likely, other...)
	switch {
	case len(all) == 0:
		return nil, errors.New("no certificate is given that may have signed the list")
	case !named:
		return nil, fmt.Errorf("%w: its issuer is %.200s", ErrIssuer, pkix.DNString(c.RawIssuer))
	case len(found) == 0 && unfit:
		return nil, fmt.Errorf("%w: %.200s", ErrKeyUsage, pkix.DNString(c.RawIssuer))
	}
	return found[:min(len(found), maxSigners)], nil
}

// maySignLists: RFC 5280, Section 4.2.1.3: without the extension every use is allowed.
func maySignLists(cert *x509.Certificate) bool {
	oidKeyUsage := asn1.ObjectIdentifier{2, 5, 29, 15}
	for _, e := range cert.Extensions {
		if e.Id.Equal(oidKeyUsage) {
			return cert.KeyUsage&x509.KeyUsageCRLSign != 0
		}
	}
	return true
}

// errFirst ends a walk after its first entry.
var errFirst = errors.New("first entry")

// build makes the index, in one pass over the entries after one that counts them.
func (p *part) build() error {
	if int64(len(p.crl.Raw)) > 1<<32-1 {
		return ErrTooLarge // the offsets of the index are of 32 bits
	}
	first := -1
	err := p.crl.Walk(func(e pkix.CRLRecord) error {
		first = e.Offset
		return errFirst
	})
	if err != nil && !errors.Is(err, errFirst) {
		return err
	}
	if first >= 0 {
		if p.index, err = newIndex(countEntries(p.crl.Raw, first, p.crl.EntriesSize())); err != nil {
			return err
		}
		if p.index.memory != nil {
			runtime.AddCleanup(p, unmap, p.index.memory)
		}
	}
	if p.indirect() {
		p.index.issuers.begin(p.name)
	}
	err = p.crl.Walk(func(e pkix.CRLRecord) error { return p.index.add(p.crl, &e) })
	p.index.flush(p.crl)
	p.index.waiting, p.index.issuers.latest = nil, nil // the latter is of the body
	return err
}

// smallestEntry is the size of an entry with a serial number of one octet and nothing but a date.
const smallestEntry = 20

// countEntries counts the entries from the first offset on without reading them. It never counts too few, and what is no
// list of entries ends the count, for Walk refuses it: so the index of a malformed list is no larger than that of a good
// one of its size.
func countEntries(raw []byte, first, size int) int {
	end := min(first+size, len(raw))
	n := 0
	for at := first; at+smallestEntry <= end && raw[at] == 0x30; n++ {
		length := int(raw[at+1])
		header := headerSize(raw[at+1:])
		if header > 2 {
			if header > 5 || at+header > end {
				return n + 1
			}
			length = 0
			for _, octet := range raw[at+2 : at+header] {
				length = length<<8 | int(octet)
			}
		}
		if header+length < smallestEntry {
			return n + 1
		}
		at += header + length
	}
	return n + 1
}
