package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
)

// Record is one fact. Exactly one field is set.
type Record struct {
	Epoch  *Epoch
	CA     *ca.CARecord
	Number *Number
	State  *State
}

// Epoch says why a journal was begun. It is the first record of each.
type Epoch struct {
	Reason string
}

// Number is the CRL number that a shard has reached without a change of a certificate.
type Number struct {
	CAID   string
	Shard  int // what the ledger numbers by; may be negative
	Number int64
}

// State is what a certificate is after a change, with all that its row needs where the ledger has none. DER and CSR of
// Certificate are not kept, nor what is too much of a common name. Times have whole microseconds.
type State struct {
	Certificate ca.Certificate
	Blocked     bool      // its key is blocked for good
	BlockedOn   time.Time // meaningful when blocked
}

// The kinds of records, and what flags of a State mean.
const (
	kindEpoch  = 1
	kindCA     = 2
	kindNumber = 3
	kindState  = 4

	flagRevoked    = 1
	flagBlocked    = 2
	flagInvalidity = 4
	flagsKnown     = flagRevoked | flagBlocked | flagInvalidity
)

var errRecord = errors.New("malformed record")

// append appends the record: kind, length, content. It refuses what parseRecord would.
func (r Record) append(b []byte) ([]byte, error) {
	e := encoder{b: make([]byte, 0, 320)}
	var kind byte
	switch {
	case r.Epoch != nil:
		kind = kindEpoch
		e.text(r.Epoch.Reason)
	case r.CA != nil:
		kind = kindCA
		// JSON, so that a field that CAs get later is in the journal without a new version of it.
		data, err := json.Marshal(r.CA)
		if err != nil {
			return nil, fmt.Errorf("CA %s: %w", r.CA.ID, err)
		}
		e.b = append(e.b, data...)
	case r.Number != nil:
		kind = kindNumber
		e.name(r.Number.CAID)
		e.signed(int64(r.Number.Shard))
		e.signed(r.Number.Number)
	case r.State != nil:
		kind = kindState
		e.state(r.State)
	default:
		return nil, fmt.Errorf("%w: it is empty", errRecord)
	}
	if e.err != nil {
		return nil, e.err
	}
	if len(e.b) > MaxRecordBytes {
		return nil, fmt.Errorf("%w: %d octets; at most %d are read", errRecord, len(e.b), MaxRecordBytes)
	}
	out := encoder{b: append(b, kind)}
	out.unsigned(uint64(len(e.b)))
	return append(out.b, e.b...), nil
}

func (e *encoder) state(s *State) {
	c := &s.Certificate
	flags := byte(0)
	if c.Status == ca.Revoked {
		flags |= flagRevoked
	}
	if s.Blocked {
		flags |= flagBlocked
	}
	if !c.InvalidityDate.IsZero() {
		flags |= flagInvalidity
	}
	e.b = append(e.b, flags, byte(c.Reason))
	e.name(c.ID)
	e.name(c.ZoneID)
	e.name(c.CAID)
	e.text(c.Profile)
	e.b = append(e.b, c.IssuerKey[:]...)
	e.octets(c.Serial.Bytes())
	e.signed(int64(c.Shard))
	e.b = append(e.b, c.KeyHash[:]...)
	e.b = append(e.b, c.Fingerprint[:]...)
	// An imported certificate may have one of any length; that is no reason not to revoke it.
	e.text(c.CommonName[:min(len(c.CommonName), MaxTextBytes)])
	e.signed(int64(c.ValidDays))
	e.signed(c.CRLNumber)
	e.time(c.NotBefore)
	e.time(c.NotAfter)
	e.time(c.IssuedOn)
	e.time(c.RevokedAt)
	if flags&flagInvalidity != 0 {
		e.time(c.InvalidityDate)
	}
	if flags&flagBlocked != 0 {
		e.time(s.BlockedOn)
	}
	if c.Reason < 0 || c.Reason > 0xff {
		e.fail("certificate %s: reason %d", c.ID, c.Reason)
	}
}

// parseRecord reads the record at the beginning of b and returns what follows it.
func parseRecord(b []byte) (r Record, rest []byte, err error) {
	d := decoder{b: b}
	kind := d.octet()
	size := d.unsigned()
	if size > MaxRecordBytes {
		d.fail("a record of %d octets; at most %d are read", size, MaxRecordBytes)
	}
	body := decoder{b: d.take(int(min(size, MaxRecordBytes)))}
	if d.err != nil {
		return Record{}, nil, d.err
	}
	switch kind {
	case kindEpoch:
		r.Epoch = &Epoch{Reason: body.text()}
	case kindCA:
		r.CA = body.ca()
	case kindNumber:
		r.Number = &Number{CAID: body.name(), Shard: int(body.signed()), Number: body.signed()}
	case kindState:
		r.State = body.state()
	default:
		return Record{}, nil, fmt.Errorf("%w: kind %d is not known; a newer sekisho may have written it", errRecord, kind)
	}
	if body.err == nil && len(body.b) > 0 {
		body.fail("%d octets follow its end", len(body.b))
	}
	return r, d.b, body.err
}

// ca reads a CA, which is the rest of the record.
func (d *decoder) ca() *ca.CARecord {
	var r ca.CARecord
	dec := json.NewDecoder(bytes.NewReader(d.take(len(d.b))))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		d.fail("CA: %v; a newer sekisho may have written it", err)
	} else if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		d.fail("CA %s: something follows it", r.ID)
	}
	return &r
}

func (d *decoder) state() *State {
	s := &State{}
	c := &s.Certificate
	flags := d.octet()
	if flags&^flagsKnown != 0 {
		d.fail("flags %#x are not known; a newer sekisho may have written them", flags)
	}
	c.Reason = pkix.Reason(d.octet())
	c.Status = ca.Active
	if flags&flagRevoked != 0 {
		c.Status = ca.Revoked
	}
	c.ID, c.ZoneID, c.CAID, c.Profile = d.name(), d.name(), d.name(), d.text()
	c.IssuerKey = d.hash()
	serial := d.octets()
	c.Serial = pkix.SerialFromBytes(serial)
	if !bytes.Equal(c.Serial.Bytes(), serial) {
		d.fail("the serial number has octets too many")
	}
	c.Shard = int(d.signed())
	c.KeyHash = d.hash()
	c.Fingerprint = d.hash()
	c.CommonName = d.text()
	c.ValidDays = int(d.signed())
	c.CRLNumber = d.signed()
	c.NotBefore, c.NotAfter, c.IssuedOn, c.RevokedAt = d.time(), d.time(), d.time(), d.time()
	if flags&flagInvalidity != 0 {
		if c.InvalidityDate = d.time(); c.InvalidityDate.IsZero() {
			d.fail("an invalidity date that is none")
		}
	}
	if s.Blocked = flags&flagBlocked != 0; s.Blocked {
		s.BlockedOn = d.time()
	}
	return s
}
