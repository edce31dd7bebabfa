package crl

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"math/bits"
	"runtime"
	"runtime/debug"
	"slices"
	"sync/atomic"

	"sekisho/internal/pkix"
)

// part is one CRL, base or delta, with its index.
type part struct {
	body   *body
	crl    *pkix.CRL // its slices are of the body: they are gone with it, so nothing outside of part may keep one
	index  index
	issuer *x509.Certificate
	broken atomic.Bool // an entry could not be read

	// What is handed out, copied from the body.
	name      []byte // of the issuer
	keyID     []byte // authority key identifier; nil: not given
	signature []byte
	algorithm string
	idp       *pkix.IssuingDistributionPoint
	scope     []pkix.GeneralName // the names of idp, a relative one made whole
	freshest  []string
}

// describe copies what the part hands out from the header.
func (p *part) describe() {
	c := p.crl
	p.name, p.keyID, p.algorithm = bytes.Clone(c.RawIssuer), bytes.Clone(c.AuthorityKeyID), c.SignatureAlgorithm()
	p.signature = bytes.Clone(c.Signature)
	for _, point := range c.FreshestCRL {
		p.freshest = append(p.freshest, point.URLs()...)
	}
	if c.IDP == nil {
		return
	}
	idp := *c.IDP
	idp.FullName, idp.Relative = cloneNames(idp.FullName), bytes.Clone(idp.Relative)
	p.idp, p.scope = &idp, idp.FullName
	if idp.Relative != nil { // RFC 5280, Section 5.2.5: relative to the issuer of the list
		p.scope = []pkix.GeneralName{{Tag: pkix.TagDirectoryName, Name: pkix.AppendRDN(p.name, idp.Relative)}}
	}
}

func cloneNames(names []pkix.GeneralName) []pkix.GeneralName {
	out := slices.Clone(names)
	for i := range out {
		out[i].Raw, out[i].Name = bytes.Clone(out[i].Raw), bytes.Clone(out[i].Name)
	}
	return out
}

func (p *part) indirect() bool { return p.idp != nil && p.idp.Indirect }

// find looks a certificate up and sets e, which its callers pass down because Entry is large.
func (p *part) find(issuer []byte, serial pkix.Serial, e *Entry) bool {
	var id uint32
	if p.indirect() {
		var known bool
		if id, known = p.index.issuers.id(issuer); !known {
			return false
		}
	}
	return p.search(id, serial.Bytes(), e)
}

// search probes the index. Only a tag that fits makes it read the body.
func (p *part) search(issuer uint32, serial []byte, e *Entry) (found bool) {
	x := &p.index
	if x.count == 0 {
		return false
	}
	at, tag := x.place(issuer, serial)
	for ended := false; !ended && !found; at = x.wrap(at + group) {
		var fits uint64
		for fits, ended = x.look(at, tag); fits != 0 && !found; fits &= fits - 1 {
			offset := x.offset(x.wrap(at + bits.TrailingZeros64(fits)/8))
			found = p.read(int(offset), issuer, serial, e)
		}
	}
	runtime.KeepAlive(p) // until here the memory of the index must stay
	return found
}

// read decodes the entry at the offset if it is the one that is looked for. The body may be a mapped file: where the
// disk cannot give a page back, the fault is made a panic, and the panic a list that is not fresh.
func (p *part) read(offset int, issuer uint32, serial []byte, e *Entry) (same bool) {
	before := debug.SetPanicOnFault(p.body.mapped)
	defer func() {
		debug.SetPanicOnFault(before)
		if fault(recover()) != nil {
			p.broken.Store(true)
			same = false
		}
	}()
	if !bytes.Equal(serialAt(p.crl.Raw, offset), serial) || p.index.issuers.at(offset) != issuer {
		return false
	}
	record, err := p.crl.RecordAt(offset)
	runtime.KeepAlive(p.body) // until here the mapping must stay
	if err != nil {           // it was read once: the file has changed
		p.broken.Store(true)
		return false
	}
	e.Reason, e.At, e.InvalidityDate = record.Reason, record.At, record.InvalidityDate
	return true
}

// serialAt is the magnitude of the serial number of the entry at the offset, which Walk has read before.
func serialAt(raw []byte, offset int) []byte {
	at := offset + headerSize(raw[offset+1:])
	size := headerSize(raw[at+1:])
	from := at + size
	to := from + int(raw[at+1])
	if size > 2 { // Walk takes no serial number over 255 octets, so there is one more octet of length
		to = from + int(raw[at+2])
	}
	if raw[from] == 0 && to-from > 1 {
		from++
	}
	return raw[from:to]
}

// headerSize is the size of an element's header, given what follows its tag.
func headerSize(length []byte) int {
	if length[0] < 0x80 {
		return 2
	}
	return 2 + int(length[0]&0x7f)
}

// fault returns the error for a recovered panic that is a fault of memory, nil for none, and panics again otherwise.
func fault(recovered any) error {
	switch r := recovered.(type) {
	case nil:
		return nil
	case interface {
		runtime.Error
		Addr() uintptr
	}:
		return fmt.Errorf("the copy on disk cannot be read: %w", r)
	}
	panic(recovered)
}
