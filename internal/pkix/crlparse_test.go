package pkix_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"sekisho/internal/pkix"
)

// crlParts are the elements of a CertificateList, each in DER, for tests to break.
type crlParts struct {
	version, inner, issuer, this, next []byte
	entries                            []byte // one after another; nil: no revokedCertificates
	extensions                         []byte // with their tags
	outer, signature                   []byte
	afterTBS, afterAll                 []byte
}

// The object identifiers of the extensions, without their common beginning.
func ce(last byte) []byte { return []byte{0x55, 0x1d, last} }

func utc(text string) []byte { return tlv(0x17, []byte(text)) }

// testName is a Name with nothing but a common name.
func testName(cn string) []byte { return tlv(0x30, tlv(0x31, testRDN(cn))) }

func testRDN(cn string) []byte {
	return tlv(0x30, tlv(0x06, []byte{0x55, 4, 3}), tlv(0x0c, []byte(cn)))
}

func ed25519Algorithm() []byte { return tlv(0x30, tlv(0x06, []byte{0x2b, 0x65, 0x70})) }

func goodCRL() crlParts {
	return crlParts{
		version: tlv(0x02, []byte{1}), inner: ed25519Algorithm(), issuer: testName("Iwa"),
		this: utc("240229235959Z"), next: utc("491231235959Z"), entries: goodEntry().der(),
		outer: ed25519Algorithm(), signature: tlv(0x03, []byte{0}, make([]byte, 64)),
	}
}

func (p crlParts) der() []byte {
	var revoked []byte
	if p.entries != nil {
		revoked = tlv(0x30, p.entries)
	}
	tbs := tlv(0x30, p.version, p.inner, p.issuer, p.this, p.next, revoked, p.extensions, p.afterTBS)
	return append(tlv(0x30, tbs, p.outer, p.signature), p.afterAll...)
}

// entryParts are the elements of an entry.
type entryParts struct{ serial, date, extensions, after []byte }

func goodEntry() entryParts {
	return entryParts{serial: tlv(0x02, []byte{0x12, 0x34}), date: utc("700101000000Z")}
}

func (e entryParts) der() []byte { return tlv(0x30, e.serial, e.date, e.extensions, e.after) }

func crlExtensions(list ...[]byte) []byte { return tlv(0xa0, tlv(0x30, list...)) }

func edited(edit func(*crlParts)) []byte {
	p := goodCRL()
	edit(&p)
	return p.der()
}

func withExtensions(list ...[]byte) []byte {
	return edited(func(p *crlParts) { p.extensions = crlExtensions(list...) })
}

func withIDP(content ...[]byte) []byte {
	return withExtensions(extension(ce(28), true, tlv(0x30, content...)))
}

type brokenCRL struct {
	der  []byte
	want string
}

// brokenHeaders names what is wrong in a CRL outside of its entries, and the words of the error.
func brokenHeaders() map[string]brokenCRL {
	good := goodCRL().der()
	number := extension(ce(20), false, tlv(0x02, []byte{5}))
	rsa := tlv(0x30, tlv(0x06, []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11}), tlv(0x05))
	headers := map[string]brokenCRL{
		"empty":             {nil, "not a CertificateList"},
		"cut":               {good[:len(good)-1], "or cut off"},
		"header only":       {good[:2], "or cut off"},
		"trailing byte":     {append(slices.Clone(good), 0), "1 bytes follow the end"},
		"SET":               {append([]byte{0x31}, good[1:]...), "not a CertificateList"},
		"indefinite length": {[]byte{0x30, 0x80, 0, 0}, "not a CertificateList"},
		"long length":       {[]byte{0x30, 0x85, 1, 0, 0, 0, 0}, "not a CertificateList"},
		"length not short":  {append([]byte{0x30, 0x82, 0}, good[2:]...), "not a CertificateList"},
		"no TBS":            {tlv(0x30, ed25519Algorithm()[:0], tlv(0x02, []byte{1})), "TBSCertList cannot be read"},
		"version 0":         {edited(func(p *crlParts) { p.version = tlv(0x02, []byte{0}) }), "neither v1 nor v2"},
		"version 3":         {edited(func(p *crlParts) { p.version = tlv(0x02, []byte{2}) }), "neither v1 nor v2"},
		"version long":      {edited(func(p *crlParts) { p.version = tlv(0x02, []byte{0, 1}) }), "neither v1 nor v2"},
		"two algorithms":    {edited(func(p *crlParts) { p.outer = rsa }), "inside is not the one outside"},
		"no inner":          {edited(func(p *crlParts) { p.inner = nil }), "inside is not the one outside"},
		"no issuer":         {edited(func(p *crlParts) { p.issuer = nil }), "the issuer is no name"},
		"issuer":            {edited(func(p *crlParts) { p.issuer = tlv(0x30, tlv(0x30)) }), "the issuer is no name"},
		"empty RDN":         {edited(func(p *crlParts) { p.issuer = tlv(0x30, tlv(0x31)) }), "the issuer is no name"},
		"huge issuer":       {edited(func(p *crlParts) { p.issuer = testName(strings.Repeat("x", 65<<10)) }), "the issuer is no name"},
		"no thisUpdate":     {edited(func(p *crlParts) { p.this, p.next = nil, nil }), "thisUpdate"},
		"30 February":       {edited(func(p *crlParts) { p.this = utc("240230000000Z") }), "thisUpdate"},
		"29 February 2100":  {edited(func(p *crlParts) { p.this = generalized("21000229000000Z") }), "thisUpdate"},
		"month 13":          {edited(func(p *crlParts) { p.this = utc("241301000000Z") }), "thisUpdate"},
		"month 0":           {edited(func(p *crlParts) { p.this = utc("240001000000Z") }), "thisUpdate"},
		"day 0":             {edited(func(p *crlParts) { p.this = utc("240100000000Z") }), "thisUpdate"},
		"hour 24":           {edited(func(p *crlParts) { p.this = utc("240101240000Z") }), "thisUpdate"},
		"minute 60":         {edited(func(p *crlParts) { p.this = utc("240101006000Z") }), "thisUpdate"},
		"second 60":         {edited(func(p *crlParts) { p.this = utc("240101000060Z") }), "thisUpdate"},
		"not a digit":       {edited(func(p *crlParts) { p.this = utc("24010100:000Z") }), "thisUpdate"},
		"sign":              {edited(func(p *crlParts) { p.this = utc("-40101000000Z") }), "thisUpdate"},
		"no seconds":        {edited(func(p *crlParts) { p.this = utc("2401010000Z") }), "thisUpdate"},
		"zone":              {edited(func(p *crlParts) { p.this = utc("240101000000+0100") }), "thisUpdate"},
		"lower-case z":      {edited(func(p *crlParts) { p.this = utc("240101000000z") }), "thisUpdate"},
		"fraction":          {edited(func(p *crlParts) { p.next = generalized("20240101000000.5Z") }), "nextUpdate"},
		"nextUpdate":        {edited(func(p *crlParts) { p.next = utc("") }), "nextUpdate"},
		"between":           {edited(func(p *crlParts) { p.next = tlv(0x05) }), "the extensions cannot be read"},
		"after extensions":  {edited(func(p *crlParts) { p.extensions, p.afterTBS = crlExtensions(number), tlv(0x05) }), "the extensions cannot be read"},
		"signature bits":    {edited(func(p *crlParts) { p.signature = tlv(0x03, []byte{1}, make([]byte, 64)) }), "the signature"},
		"empty signature":   {edited(func(p *crlParts) { p.signature = tlv(0x03, []byte{0}) }), "the signature"},
		"no signature":      {edited(func(p *crlParts) { p.signature = nil }), "the signature"},
		"huge signature":    {edited(func(p *crlParts) { p.signature = tlv(0x03, make([]byte, 65<<10)) }), "the signature"},
		"fourth field":      {edited(func(p *crlParts) { p.signature = append(p.signature, 0x05, 0) }), "the signature"},
		"v1 extensions":     {edited(func(p *crlParts) { p.version, p.extensions = nil, crlExtensions(number) }), "version 1 has no extensions"},
	}
	for name, b := range brokenExtensions() {
		headers[name] = b
	}
	return headers
}

func brokenExtensions() map[string]brokenCRL {
	number := extension(ce(20), false, tlv(0x02, []byte{5}))
	base := func(value ...byte) []byte { return extension(ce(27), true, tlv(0x02, value)) }
	yes, no := []byte{0xff}, []byte{0}
	many := make([][]byte, 65)
	for i := range many {
		many[i] = extension([]byte{0x2b, byte(i)}, false, nil)
	}
	huge := extension([]byte{0x2b, 1}, false, make([]byte, 10<<20))
	uri := func(text string) []byte { return tlv(0xa0, tlv(0xa0, tlv(0x86, []byte(text)))) }
	return map[string]brokenCRL{
		"unknown critical":   {withExtensions(number, extension([]byte{0x2b, 3}, true, nil)), "unknown critical extension 1.3.3"},
		"unknown OID":        {withExtensions(extension([]byte{0x2b, 0x80}, true, nil)), "unknown critical extension 2b80"},
		"CDP in a CRL":       {withExtensions(extension(ce(31), true, tlv(0x30))), "unknown critical extension 2.5.29.31"},
		"twice":              {withExtensions(number, number), "2.5.29.20 occurs twice"},
		"unknown twice":      {withExtensions(extension([]byte{0x2b, 3}, false, nil), extension([]byte{0x2b, 3}, false, no)), "1.3.3 occurs twice"},
		"extension":          {withExtensions(tlv(0x30, tlv(0x06, ce(20)))), "an extension cannot be read"},
		"extension tail":     {withExtensions(tlv(0x30, tlv(0x06, ce(20)), tlv(0x04, tlv(0x02, []byte{5})), tlv(0x05))), "an extension cannot be read"},
		"critical 1":         {withExtensions(tlv(0x30, tlv(0x06, ce(20)), tlv(0x01, []byte{1}), tlv(0x04, tlv(0x02, []byte{5})))), "an extension cannot be read"},
		"empty OID":          {withExtensions(tlv(0x30, tlv(0x06), tlv(0x04))), "an extension cannot be read"},
		"not a list":         {edited(func(p *crlParts) { p.extensions = tlv(0xa0, number[2:]) }), "the extensions cannot be read"},
		"two lists":          {edited(func(p *crlParts) { p.extensions = tlv(0xa0, tlv(0x30), tlv(0x30)) }), "the extensions cannot be read"},
		"65 extensions":      {withExtensions(many...), "more than 64 extensions"},
		"10 MB":              {withExtensions(huge), "at most 1048576 are read"},
		"number negative":    {withExtensions(extension(ce(20), false, tlv(0x02, []byte{0x80}))), "2.5.29.20 cannot be read"},
		"number 21 octets":   {withExtensions(extension(ce(20), false, tlv(0x02, append([]byte{1}, make([]byte, 20)...)))), "2.5.29.20 cannot be read"},
		"number not minimal": {withExtensions(extension(ce(20), false, tlv(0x02, []byte{0, 5}))), "2.5.29.20 cannot be read"},
		"number tail":        {withExtensions(extension(ce(20), false, append(tlv(0x02, []byte{5}), 0))), "2.5.29.20 cannot be read"},
		"key identifier":     {withExtensions(extension(ce(35), false, tlv(0x30, tlv(0x81)))), "2.5.29.35 cannot be read"},
		"delta, no number":   {withExtensions(base(5)), "a delta without a CRL number"},
		"base over number":   {withExtensions(number, base(6)), "the base number 6 is over the CRL number 5"},
		"base negative":      {withExtensions(number, base(0xff)), "2.5.29.27 cannot be read"},
		"freshest":           {withExtensions(extension(ce(46), false, tlv(0x30))), "freshest CRL: this is no list"},
		"IDP empty":          {withIDP(), "issuing distribution point: it is empty"},
		"IDP no SEQUENCE":    {withExtensions(extension(ce(28), true, tlv(0x31, tlv(0x81, yes)))), "this is no SEQUENCE"},
		"IDP false":          {withIDP(tlv(0x81, no)), "its fields cannot be read"},
		"IDP true as 1":      {withIDP(tlv(0x84, []byte{1})), "its fields cannot be read"},
		"IDP BOOLEAN empty":  {withIDP(tlv(0x82)), "its fields cannot be read"},
		"IDP BOOLEAN long":   {withIDP(tlv(0x85, yes, yes)), "its fields cannot be read"},
		"IDP order":          {withIDP(tlv(0x82, yes), uri("http://a")), "its fields cannot be read"},
		"IDP twice":          {withIDP(tlv(0x81, yes), tlv(0x81, yes)), "its fields cannot be read"},
		"IDP unknown field":  {withIDP(tlv(0x86, yes)), "its fields cannot be read"},
		"IDP user and CA":    {withIDP(tlv(0x81, yes), tlv(0x82, yes)), "more than one kind"},
		"IDP user and attr":  {withIDP(tlv(0x81, yes), tlv(0x85, yes)), "more than one kind"},
		"IDP CA and attr":    {withIDP(tlv(0x82, yes), tlv(0x85, yes)), "more than one kind"},
		"IDP no reasons":     {withIDP(tlv(0x83, no)), "no BIT STRING"},
		"IDP reasons none":   {withIDP(tlv(0x83, no, no)), "the set of reasons is empty"},
		"IDP reasons unused": {withIDP(tlv(0x83, []byte{7, 0x80})), "the set of reasons is empty"},
		"IDP reasons bits":   {withIDP(tlv(0x83, []byte{8, 0x40})), "no BIT STRING"},
		"IDP reasons pad":    {withIDP(tlv(0x83, []byte{6, 0x41})), "no BIT STRING"},
		"IDP reasons long":   {withIDP(tlv(0x83, []byte{0, 0x40, 1, 1})), "no BIT STRING"},
		"IDP name empty":     {withIDP(tlv(0xa0)), "the name of the distribution point"},
		"IDP names none":     {withIDP(tlv(0xa0, tlv(0xa0))), "a list of names is empty"},
		"IDP both names":     {withIDP(tlv(0xa0, tlv(0xa0, tlv(0x86, []byte("u"))), tlv(0xa1, testRDN("x")))), "the full name cannot be read"},
		"IDP relative":       {withIDP(tlv(0xa0, tlv(0xa1))), "the name of the distribution point"},
		"IDP URI":            {withIDP(uri("http://p\x80")), "other characters than ASCII"},
		"IDP tag 9":          {withIDP(tlv(0xa0, tlv(0xa0, tlv(0x89, no)))), "no GeneralName with the tag 0x89"},
		"IDP universal":      {withIDP(tlv(0xa0, tlv(0xa0, tlv(0x06, no)))), "no GeneralName with the tag 0x06"},
		"IDP directory":      {withIDP(tlv(0xa0, tlv(0xa0, tlv(0xa4, tlv(0x04))))), "a directory name cannot be read"},
		"IDP primitive":      {withIDP(tlv(0xa0, tlv(0xa0, tlv(0x84, testName("x"))))), "no GeneralName with the tag 0x84"},
		"IDP names many":     {withIDP(tlv(0xa0, tlv(0xa0, bytes.Repeat(tlv(0x86, []byte("u")), 65)))), "more than 64 names"},
	}
}

// brokenEntries names what is wrong in an entry, and the words of the error.
func brokenEntries() map[string]brokenCRL {
	entry := func(edit func(*entryParts)) []byte {
		e := goodEntry()
		edit(&e)
		return edited(func(p *crlParts) { p.entries = append(goodEntry().der(), e.der()...) })
	}
	serial := func(content ...byte) []byte { return entry(func(e *entryParts) { e.serial = tlv(0x02, content) }) }
	exts := func(list ...[]byte) []byte { return entry(func(e *entryParts) { e.extensions = tlv(0x30, list...) }) }
	reason := func(n byte) []byte { return extension(ce(21), false, tlv(0x0a, []byte{n})) }
	many := make([][]byte, 17)
	for i := range many {
		many[i] = extension([]byte{0x2b, byte(i)}, false, nil)
	}
	issuer := extension(ce(29), true, tlv(0x30, tlv(0xa4, testName("x"))))
	indirect := func(value []byte) []byte {
		e := goodEntry()
		e.extensions = tlv(0x30, extension(ce(29), true, value))
		p := goodCRL()
		p.entries = append(p.entries, e.der()...)
		p.extensions = crlExtensions(extension(ce(28), true, tlv(0x30, tlv(0x84, []byte{0xff}))))
		return p.der()
	}
	v1 := goodEntry()
	v1.extensions = tlv(0x30, reason(1))
	return map[string]brokenCRL{
		"no SEQUENCE":      {edited(func(p *crlParts) { p.entries = append(p.entries, 0x31, 0) }), "it cannot be read, or is cut off"},
		"over the end":     {edited(func(p *crlParts) { p.entries = append(p.entries, 0x30, 5, 2, 1, 1) }), "it cannot be read, or is cut off"},
		"serial too long":  {edited(func(p *crlParts) { p.entries = append(p.entries, 0x30, 3, 2, 2, 1) }), "it cannot be read, or is cut off"},
		"one octet":        {edited(func(p *crlParts) { p.entries = append(p.entries, 0x30) }), "it cannot be read, or is cut off"},
		"no serial":        {entry(func(e *entryParts) { e.serial = nil }), "it cannot be read, or is cut off"},
		"serial empty":     {serial(), "the serial number is empty"},
		"serial negative":  {serial(0x80), "the serial number is negative"},
		"serial -1":        {serial(0xff), "the serial number is negative"},
		"serial padded":    {serial(0, 0x7f), "octets too many"},
		"serial 00 00":     {serial(0, 0), "octets too many"},
		"serial ff 80":     {serial(0xff, 0x80), "octets too many"},
		"serial of 256":    {serial(bytes.Repeat([]byte{1}, 256)...), "longer than 255 octets"},
		"no date":          {entry(func(e *entryParts) { e.date = nil }), "the revocation date"},
		"date":             {entry(func(e *entryParts) { e.date = utc("700101000000") }), "the revocation date"},
		"date cut":         {edited(func(p *crlParts) { p.entries = tlv(0x30, tlv(0x02, []byte{1}), utc("700101000000Z")[:14]) }), "the revocation date"},
		"after":            {entry(func(e *entryParts) { e.after = tlv(0x05) }), "its extensions cannot be read"},
		"after extensions": {entry(func(e *entryParts) { e.extensions, e.after = tlv(0x30, reason(1)), tlv(0x05) }), "its extensions cannot be read"},
		"extension":        {exts(tlv(0x30)), "an extension cannot be read"},
		"no value":         {exts(tlv(0x30, tlv(0x06, ce(21)))), "an extension cannot be read"},
		"value tail":       {exts(tlv(0x30, tlv(0x06, ce(21)), tlv(0x04, tlv(0x0a, []byte{1})), tlv(0x05))), "an extension cannot be read"},
		"critical 1":       {exts(tlv(0x30, tlv(0x06, ce(21)), tlv(0x01, []byte{1}), tlv(0x04, tlv(0x0a, []byte{1})))), "an extension cannot be read"},
		"empty OID":        {exts(tlv(0x30, tlv(0x06), tlv(0x04))), "an extension cannot be read"},
		"unknown critical": {exts(extension([]byte{0x2b, 3}, true, nil)), "unknown critical extension 1.3.3 of the entry"},
		"reason twice":     {exts(reason(1), reason(2)), "2.5.29.21 occurs twice"},
		"unknown twice":    {exts(extension([]byte{0x2b, 3}, false, nil), reason(1), extension([]byte{0x2b, 3}, false, nil)), "1.3.3 occurs twice"},
		"17 extensions":    {exts(many...), "more than 16 extensions"},
		"reason INTEGER":   {exts(extension(ce(21), false, tlv(0x02, []byte{1}))), "no ENUMERATED"},
		"reason long":      {exts(extension(ce(21), false, tlv(0x0a, []byte{0, 1}))), "no ENUMERATED"},
		"reason empty":     {exts(extension(ce(21), false, tlv(0x0a))), "no ENUMERATED"},
		"reason negative":  {exts(reason(0x80)), "the reason is negative"},
		"reason critical":  {exts(extension(ce(21), true, tlv(0x0a, []byte{0x81}))), "the reason is negative"},
		"removeFromCRL":    {exts(reason(8)), "removeFromCRL outside of a delta"},
		"invalidity UTC":   {exts(extension(ce(24), false, utc("700101000000Z"))), "the invalidity date"},
		"invalidity tail":  {exts(extension(ce(24), false, append(generalized(soon), 0))), "the invalidity date"},
		"invalidity empty": {exts(extension(ce(24), false, nil)), "the invalidity date"},
		"v1":               {edited(func(p *crlParts) { p.version, p.entries = nil, append(p.entries, v1.der()...) }), "version 1 has no extensions"},
		"issuer, direct":   {exts(issuer), "but the CRL is not indirect"},
		"issuer, no list":  {indirect(tlv(0x31)), "issuer cannot be read"},
		"issuer, empty":    {indirect(tlv(0x30)), "has no directory name"},
		"issuer, URI":      {indirect(tlv(0x30, tlv(0x86, []byte("u")))), "has no directory name"},
		"issuer, two":      {indirect(tlv(0x30, tlv(0xa4, testName("x")), tlv(0xa4, testName("y")))), "two issuers"},
		"issuer, no name":  {indirect(tlv(0x30, tlv(0xa4, tlv(0x04)))), "issuer is no name"},
		"issuer, cut":      {indirect(tlv(0x30, []byte{0xa4, 5})), "issuer cannot be read"},
	}
}

func TestInvariant13BrokenCRLHeaders(t *testing.T) {
	parseHeader(t, goodCRL().der())
	for name, b := range brokenHeaders() {
		begin := time.Now()
		c, err := pkix.ParseCRLHeader(b.der)
		t.Run(name, func(t *testing.T) { wantError(t, err, b.want) })
		if c != nil || !errors.Is(err, pkix.ErrCRLMalformed) && !errors.Is(err, pkix.ErrCRLCritical) {
			t.Errorf("%s: %v with error %v", name, c, err)
		}
		if took := time.Since(begin); took > time.Second && !raceEnabled || err != nil && len(err.Error()) > 500 {
			t.Errorf("%s: %v, error %v", name, took, err)
		}
	}
}

func TestInvariant13BrokenCRLEntries(t *testing.T) {
	for name, b := range brokenEntries() {
		c := parseHeader(t, b.der)
		var walked int
		err := c.Walk(func(pkix.CRLRecord) error { walked++; return nil })
		t.Run(name, func(t *testing.T) { wantError(t, err, b.want, "entry at offset ") })
		if walked > 1 || !errors.Is(err, pkix.ErrCRLMalformed) && !errors.Is(err, pkix.ErrCRLCritical) {
			t.Errorf("%s: %d entries read, %v", name, walked, err)
		}
	}
}

// TestCRLTolerated: what RFC 5280 would have otherwise, but can mean one thing only.
func TestCRLTolerated(t *testing.T) {
	entry := goodEntry()
	entry.extensions = tlv(0x30,
		tlv(0x30, tlv(0x06, ce(21)), tlv(0x01, []byte{0}), tlv(0x04, tlv(0x0a, []byte{7}))), // critical FALSE, and no such reason
		extension([]byte{0x2b, 3}, false, nil),
		extension(ce(24), true, generalized("19491231235959Z")))
	second := goodEntry()
	second.date, second.extensions = generalized("20240229000000Z"), tlv(0x30)
	p := goodCRL()
	p.entries = slices.Concat(entry.der(), second.der(), second.der())
	p.next = nil
	p.extensions = crlExtensions(
		extension(ce(35), true, tlv(0x30, tlv(0xa1, tlv(0x86, []byte("u"))), tlv(0x82, []byte{1}))),
		extension(ce(28), false, tlv(0x30, tlv(0x83, []byte{0, 0x60, 0x80}))))
	c := parseHeader(t, p.der())
	if !c.NextUpdate.IsZero() || c.Number != nil || c.AuthorityKeyID != nil || c.IDP.OnlySomeReasons != 1<<1|1<<2|1<<8 {
		t.Errorf("%v, number %v, key %x, %+v", c.NextUpdate, c.Number, c.AuthorityKeyID, c.IDP)
	}
	got := records(t, c)
	if len(got) != 3 || got[0].Reason != 7 || got[0].Reason.Known() || got[0].InvalidityDate.Format(time.RFC3339) != "1949-12-31T23:59:59Z" ||
		got[1].At.Format(time.RFC3339) != "2024-02-29T00:00:00Z" || !got[1].InvalidityDate.IsZero() || got[1].Reason != pkix.Unspecified {
		t.Errorf("%+v", got)
	}
	for name, empty := range map[string][]byte{
		"no list":      edited(func(p *crlParts) { p.entries = nil }),
		"empty list":   edited(func(p *crlParts) { p.entries = []byte{} }),
		"no extension": edited(func(p *crlParts) { p.entries, p.extensions = nil, crlExtensions() }),
	} {
		if c := parseHeader(t, empty); len(records(t, c)) != 0 || c.EntriesSize() != 0 {
			t.Errorf("%s: entries in an empty list", name)
		}
	}
}

func TestCRLTimes(t *testing.T) {
	for text, want := range map[string]string{
		"491231235959Z": "2049-12-31T23:59:59Z", "500101000000Z": "1950-01-01T00:00:00Z", "991231000000Z": "1999-12-31T00:00:00Z",
		"000229123456Z": "2000-02-29T12:34:56Z", "700101000001Z": "1970-01-01T00:00:01Z", "690301000000Z": "1969-03-01T00:00:00Z",
		"00000101000000Z": "0000-01-01T00:00:00Z", "00000301000000Z": "0000-03-01T00:00:00Z", "99991231235959Z": "9999-12-31T23:59:59Z",
		"16000229000000Z": "1600-02-29T00:00:00Z", "19000301000000Z": "1900-03-01T00:00:00Z", "21000301000000Z": "2100-03-01T00:00:00Z",
	} {
		der := edited(func(p *crlParts) {
			if p.this = utc(text); len(text) == 15 {
				p.this = generalized(text)
			}
		})
		if got := parseHeader(t, der).ThisUpdate; got.Format(time.RFC3339) != want || got.Location() != time.UTC {
			t.Errorf("%s is %v, want %s", text, got, want)
		}
	}
	// Every day that there is, and with it every day that there is not.
	for day := time.Date(0, 1, 1, 6, 7, 8, 0, time.UTC); day.Year() < 10000; day = day.AddDate(0, 0, 37) {
		der := edited(func(p *crlParts) { p.this = generalized(day.Format("20060102150405Z")) })
		if got := parseHeader(t, der).ThisUpdate; !got.Equal(day) {
			t.Fatalf("%v is read as %v", day, got)
		}
	}
}

func TestParsePEMOrDERCRL(t *testing.T) {
	dir := t.TempDir()
	der := goodCRL().der()
	write(t, dir, "crl.der", der)
	openssl(t, dir, "crl", "-inform", "DER", "-in", "crl.der", "-out", "crl.pem")
	openssl(t, dir, "crl", "-in", "crl.pem", "-text", "-out", "text.pem")
	pem := readFile(t, dir, "crl.pem")
	for name, data := range map[string][]byte{
		"DER": der, "PEM": pem, "with text": readFile(t, dir, "text.pem"), "CRLF": crlf(pem), "0 first": append([]byte("0 text\n"), pem...),
		"old label": bytes.ReplaceAll(pem, []byte("X509 CRL"), []byte("CRL")), "blanks after": append(slices.Clone(pem), "\n \n"...),
	} {
		if got, err := pkix.ParsePEMOrDERCRL(data); err != nil || !bytes.Equal(got, der) {
			t.Errorf("%s: %v, %d bytes, want %d", name, err, len(got), len(der))
		}
	}
	for name, tt := range map[string]brokenCRL{
		"empty":       {nil, "the text is empty"},
		"two":         {append(slices.Clone(pem), pem...), "has 2 blocks"},
		"after":       {append(slices.Clone(pem), "x"...), "1 bytes follow"},
		"damaged":     {bytes.ReplaceAll(pem, []byte("END"), []byte("ENd")), "cut off or damaged"},
		"certificate": {bytes.ReplaceAll(pem, []byte("X509 CRL"), []byte("CERTIFICATE")), `a "X509 CRL" is wanted`},
		"key":         {bytes.ReplaceAll(pem, []byte("X509 CRL"), []byte("PRIVATE KEY")), "this is a private key"},
		"HTML":        {[]byte("<html>404</html>"), "no PEM block found"},
		"begins":      {bytes.Repeat([]byte("-----BEGIN X509 CRL-----\n"), 1<<20), "has 1048576 blocks"},
		"ends":        {append(slices.Clone(pem[:40]), bytes.Repeat([]byte("-----END X509 CRL-----\n"), 1<<20)...), "CRL: "},
	} {
		begin := time.Now()
		_, err := pkix.ParsePEMOrDERCRL(tt.der)
		t.Run(name, func(t *testing.T) { wantError(t, err, tt.want) })
		if took := time.Since(begin); took > time.Second && !raceEnabled {
			t.Errorf("%s took %v", name, took)
		}
	}
}
