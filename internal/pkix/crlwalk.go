package pkix

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// maxEntryExtensions bounds the extensions of one entry, and by it the work of
// finding one that occurs twice.
const maxEntryExtensions = 16

// maxEntrySerial is the longest serial number of an entry, in octets.
const maxEntrySerial = 255

// CRLRecord is one entry of revokedCertificates as Walk reads it. The slices
// are parts of the CRL's Raw.
type CRLRecord struct {
	Offset         int    // of the entry in Raw, for RecordAt
	Serial         []byte // minimal big-endian magnitude, as Serial.Bytes
	At             time.Time
	Reason         Reason    // Unspecified if not given; not necessarily Known
	InvalidityDate time.Time // zero: not given
	Issuer         []byte    // Name in DER of the certificate's issuer, in an indirect CRL; nil: the CRL's issuer
}

// Walk calls fn for every entry in the order of the list and stops at the
// first error, its own or fn's. It allocates nothing. Entries may be in any
// order and occur more than once.
//
// It refuses what is not DER, serial numbers that are empty or negative (see
// SkipNegative), an extension that occurs twice or is critical and unknown,
// extensions in version 1, certificateIssuer outside of an indirect CRL and
// removeFromCRL outside of a delta. Its errors name the offset of the entry and
// are ErrCRLMalformed or ErrCRLCritical.
func (c *CRL) Walk(fn func(e CRLRecord) error) error {
	raw := c.Raw[:c.entries.to]
	at := c.entries.from
	// Section 5.3.3: an entry without certificateIssuer has that of the entry before it, so e.Issuer stays.
	var e CRLRecord
	for at < len(raw) {
		e.Offset = at
		next, negative, err := c.readEntry(raw, &e)
		if err != nil {
			return err
		}
		if !negative {
			if err := fn(e); err != nil {
				return err
			}
		}
		at, e.Reason = next, Unspecified
		if !e.InvalidityDate.IsZero() {
			e.InvalidityDate = time.Time{}
		}
	}
	return nil
}

// RecordAt reads the one entry at the offset that a CRLRecord had. Its Issuer
// is what the entry itself says: Walk alone knows that of an entry before it.
func (c *CRL) RecordAt(offset int) (CRLRecord, error) {
	if offset < c.entries.from || offset >= c.entries.to {
		return CRLRecord{}, fmt.Errorf("CRL of %s: offset %d is in none of its entries", DNString(c.RawIssuer), offset)
	}
	e := CRLRecord{Offset: offset}
	_, negative, err := c.readEntry(c.Raw[:c.entries.to], &e)
	if err == nil && negative {
		err = entryError(offset, "the serial number is negative")
	}
	if err != nil {
		return CRLRecord{}, err
	}
	return e, nil
}

// EntriesSize is the number of octets of all entries.
func (c *CRL) EntriesSize() int { return c.entries.to - c.entries.from }

// Entries are the octets of all entries, a part of Raw: what AppendCRLEntry
// would write of a list that was signed here.
func (c *CRL) Entries() []byte { return c.Raw[c.entries.from:c.entries.to:c.entries.to] }

// entryError names the entry. Offsets count from the beginning of the CRL, as
// openssl asn1parse prints them.
func entryError(offset int, what string) error {
	return fmt.Errorf("%w: entry at offset %d: %s", ErrCRLMalformed, offset, what)
}

// readEntry reads the entry at e.Offset of raw into e and returns where the
// next one begins. negative is true only if SkipNegative allows it.
func (c *CRL) readEntry(raw []byte, e *CRLRecord) (next int, negative bool, err error) {
	next, from, to, ok := entryHeaders(raw, e.Offset)
	if !ok {
		return 0, false, entryError(e.Offset, "it cannot be read, or is cut off")
	}
	raw = raw[:next]
	e.Serial = raw[from:to]
	if len(e.Serial) == 0 || len(e.Serial) > maxEntrySerial || e.Serial[0] == 0 || e.Serial[0] >= 0x80 {
		if negative, err = c.oddSerial(e); err != nil {
			return 0, false, err
		}
	}
	sec, at, ok := derTime(raw, to)
	if !ok {
		return 0, false, entryError(e.Offset, "the revocation date cannot be read")
	}
	e.At = time.Unix(sec, 0).UTC()
	if at < next {
		if err := c.readEntryExtensions(raw, at, e); err != nil {
			return 0, false, err
		}
	}
	return next, negative, nil
}

// oddSerial looks at a serial number that is not plainly positive, and takes
// away the zero octet that makes it so.
func (c *CRL) oddSerial(e *CRLRecord) (negative bool, err error) {
	s := e.Serial
	switch {
	case len(s) == 0:
		return false, entryError(e.Offset, "the serial number is empty")
	case len(s) > maxEntrySerial:
		return false, entryError(e.Offset, "the serial number is longer than 255 octets")
	case len(s) > 1 && (s[0] == 0 && s[1] < 0x80 || s[0] == 0xff && s[1] >= 0x80):
		return false, entryError(e.Offset, "the serial number has octets too many")
	case s[0] >= 0x80 && !c.SkipNegative:
		return false, entryError(e.Offset, "the serial number is negative")
	case s[0] == 0 && len(s) > 1:
		e.Serial = s[1:]
	}
	return s[0] >= 0x80, nil
}

// entryHeaders finds the end of the entry at raw[at:], and its serial number,
// raw[from:to].
func entryHeaders(raw []byte, at int) (next, from, to int, ok bool) {
	if len(raw)-at >= 4 {
		// SEQUENCE and INTEGER with lengths in one octet each: nearly all entries.
		if h := binary.LittleEndian.Uint32(raw[at:]); h&0x80ff80ff == 0x00020030 {
			next, to = at+2+int(h>>8&0x7f), at+4+int(h>>24)
			return next, at + 4, to, next <= len(raw) && to <= next
		}
	}
	from, next, ok = derElement(raw, at, 0x30)
	if !ok {
		return 0, 0, 0, false
	}
	from, to, ok = derElement(raw[:next], from, 0x02)
	return next, from, to, ok
}

// reasonOnly is crlEntryExtensions with nothing but a reason, but for its last
// octet: what nearly all entries with extensions have.
const reasonOnly = "\x30\x0c\x30\x0a\x06\x03\x55\x1d\x15\x04\x03\x0a\x01"

// readEntryExtensions reads crlEntryExtensions, raw[at:], the last field.
func (c *CRL) readEntryExtensions(raw []byte, at int, e *CRLRecord) error {
	if c.Version == 1 { // Section 5.1.2.6
		return entryError(e.Offset, "version 1 has no extensions")
	}
	if len(raw)-at == len(reasonOnly)+1 && string(raw[at:at+len(reasonOnly)]) == reasonOnly {
		return c.setReason(raw[at+len(reasonOnly)], e)
	}
	list, to, ok := derElement(raw, at, 0x30)
	if !ok || to != len(raw) {
		return entryError(e.Offset, "its extensions cannot be read")
	}
	count := 0
	for at := list; at < len(raw); count++ {
		x, ok := readEntryExtension(raw, at)
		switch {
		case !ok:
			return entryError(e.Offset, "an extension cannot be read")
		case count == maxEntryExtensions:
			return entryError(e.Offset, "more than 16 extensions")
		}
		for before := list; before < at; { // each of these has been read
			b, _ := readEntryExtension(raw, before)
			if string(b.id) == string(x.id) {
				return entryError(e.Offset, "extension "+oidText(x.id)+" occurs twice")
			}
			before = b.next
		}
		if err := c.setEntryExtension(x, e); err != nil {
			return err
		}
		at = x.next
	}
	return nil
}

// entryExtension is one Extension of an entry.
type entryExtension struct {
	id, value []byte
	critical  bool
	next      int
}

func readEntryExtension(raw []byte, at int) (x entryExtension, ok bool) {
	at, x.next, ok = derElement(raw, at, 0x30)
	if !ok {
		return x, false
	}
	raw = raw[:x.next]
	from, to, ok := derElement(raw, at, 0x06)
	if !ok || from == to {
		return x, false
	}
	x.id = raw[from:to]
	if at = to; at < len(raw) && raw[at] == 0x01 {
		// As in readExtension, a false that should be left out is read as what it says.
		if from, to, ok = derElement(raw, at, 0x01); !ok || to-from != 1 || raw[from] != 0 && raw[from] != 0xff {
			return x, false
		}
		x.critical, at = raw[from] != 0, to
	}
	from, to, ok = derElement(raw, at, 0x04)
	if !ok || to != len(raw) {
		return x, false
	}
	x.value = raw[from:to]
	return x, true
}

func (c *CRL) setEntryExtension(x entryExtension, e *CRLRecord) error {
	switch string(x.id) {
	case ceReason:
		if len(x.value) != 3 || x.value[0] != 0x0a || x.value[1] != 1 {
			return entryError(e.Offset, "the reason is no ENUMERATED of one octet")
		}
		return c.setReason(x.value[2], e)
	case ceInvalidityDate: // Section 5.3.2: always GeneralizedTime
		sec, to, ok := derTime(x.value, 0)
		if !ok || to != len(x.value) || x.value[0] != 0x18 {
			return entryError(e.Offset, "the invalidity date cannot be read")
		}
		e.InvalidityDate = time.Unix(sec, 0).UTC()
	case ceCertificateIssuer:
		if c.IDP == nil || !c.IDP.Indirect {
			return entryError(e.Offset, "it names another issuer, but the CRL is not indirect")
		}
		issuer, err := certificateIssuer(x.value)
		if err != nil {
			return entryError(e.Offset, err.Error())
		}
		e.Issuer = issuer
	default:
		if x.critical { // Section 5.3: MUST NOT be used
			return fmt.Errorf("%w %s of the entry at offset %d", ErrCRLCritical, oidText(x.id), e.Offset)
		}
	}
	return nil
}

// setReason takes a reason's number. One that RFC 5280 does not know revokes
// all the same.
func (c *CRL) setReason(number byte, e *CRLRecord) error {
	switch {
	case number >= 0x80:
		return entryError(e.Offset, "the reason is negative")
	case Reason(number) == RemoveFromCRL && c.BaseNumber == nil: // Section 5.3.1
		return entryError(e.Offset, "removeFromCRL outside of a delta CRL")
	}
	e.Reason = Reason(number)
	return nil
}

// certificateIssuer finds the one directory name of a CertificateIssuer
// (RFC 5280, Section 5.3.3). Other kinds of names beside it are from the
// issuer's alternative names and not needed.
func certificateIssuer(value []byte) ([]byte, error) {
	at, to, ok := derElement(value, 0, 0x30)
	if !ok || to != len(value) {
		return nil, errors.New("the certificate's issuer cannot be read")
	}
	var name []byte
	const directoryName = 0xa4
	for at < len(value) {
		from, end, ok := derElement(value, at, value[at])
		switch {
		case !ok:
			return nil, errors.New("the certificate's issuer cannot be read")
		case value[at] != directoryName:
		case name != nil:
			return nil, errors.New("the certificate has two issuers")
		case !validName(value[from:end]):
			return nil, errors.New("the certificate's issuer is no name")
		default:
			name = value[from:end]
		}
		at = end
	}
	if name == nil {
		return nil, errors.New("the certificate's issuer has no directory name")
	}
	return name, nil
}

// derElement reads the header of the element at b[at:], which must have the
// tag: b[from:to] is its content. The length must be definite, in its shortest
// form, and within b. Negative positions do not occur.
func derElement(b []byte, at int, tag byte) (from, to int, ok bool) {
	if at+1 >= len(b) || b[at] != tag {
		return 0, 0, false
	}
	from = at + 2
	if to = from + int(b[at+1]); to < from+0x80 {
		return from, to, to <= len(b)
	}
	return derLong(b, at)
}

// derLong is derElement with a length of 128 octets and more.
func derLong(b []byte, at int) (from, to int, ok bool) {
	count := int(b[at+1] & 0x7f)
	if count == 0 || count > 4 || len(b)-at-2 < count || b[at+2] == 0 {
		return 0, 0, false
	}
	var n uint64
	for _, octet := range b[at+2 : at+2+count] {
		n = n<<8 | uint64(octet)
	}
	from = at + 2 + count
	if n < 0x80 || n > uint64(len(b)-from) {
		return 0, 0, false
	}
	return from, from + int(n), true
}

// monthDays are the days of each month, of February in a leap year.
const monthDays = "\x00\x1f\x1d\x1f\x1e\x1f\x1e\x1f\x1f\x1e\x1f\x1e\x1f"

// derTime reads the Time at b[at:] as seconds since 1970: YYMMDDhhmmssZ as
// UTCTime or YYYYMMDDhhmmssZ as GeneralizedTime, the only forms of RFC 5280,
// Section 4.1.2.5. It is on the way of every entry, so two digits at once.
func derTime(b []byte, at int) (sec int64, next int, ok bool) {
	var year, rest int
	switch {
	case len(b)-at >= 15 && b[at] == 0x17 && b[at+1] == 13:
		rest = at + 4
	case len(b)-at >= 17 && b[at] == 0x18 && b[at+1] == 15:
		rest = at + 6
	default:
		return 0, 0, false
	}
	head, ok1 := fourPairs(binary.LittleEndian.Uint64(b[at+2:]))
	tail, ok2 := fourPairs(binary.LittleEndian.Uint64(b[rest+2:]))
	if !ok1 || !ok2 || b[rest+10] != 'Z' {
		return 0, 0, false
	}
	month := int(head >> 16 & 0xff)
	switch year = int(head & 0xff); {
	case rest == at+6:
		year = 100*year + month
		month = int(head >> 32 & 0xff)
	case year < 50: // Section 4.1.2.5.1
		year += 2000
	default:
		year += 1900
	}
	day, hour, minute, second := int(tail&0xff), int(tail>>16&0xff), int(tail>>32&0xff), int(tail>>48&0xff)
	if month < 1 || month > 12 || day < 1 || day > int(monthDays[month]) || hour > 23 || minute > 59 || second > 59 ||
		month == 2 && day == 29 && (year%4 != 0 || year%100 == 0 && year%400 != 0) {
		return 0, 0, false
	}
	return int64(daysSince1970(year, month, day))*86400 + int64(hour*3600+minute*60+second), rest + 11, true
}

// fourPairs turns eight decimal digits, the first in the lowest octet, into
// four numbers below 100 in the octets 0, 2, 4 and 6.
func fourPairs(digits uint64) (pairs uint64, ok bool) {
	const high, zeros, sixes = 0xf0f0f0f0f0f0f0f0, 0x3030303030303030, 0x0606060606060606
	if digits&high != zeros || (digits+sixes)&high != zeros {
		return 0, false
	}
	digits &^= high
	return (digits*10 + digits>>8) & 0x00ff00ff00ff00ff, true
}

// daysSince1970 counts the days of the Gregorian calendar, with years that
// begin in March so that the leap day comes last. Years are 0 to 9999.
func daysSince1970(year, month, day int) int {
	year += 399 // so that nothing is negative; 400 years have 146,097 days
	if month -= 3; month < 0 {
		month += 12
	} else {
		year++
	}
	centuries := 18 // without a leap day, from 1900 to 2099: no division for UTCTime
	if year < 1900+400 || year >= 2100+400 {
		centuries = year/100 - year/400
	}
	return 365*year + year/4 - centuries + (153*month+2)/5 + day - 1 - 719468 - 146097
}
