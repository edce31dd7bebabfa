package edge

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"time"

	"sekisho/internal/pkix"
	"sekisho/internal/site"
)

// A ticket on the wire:
//
//	version(1) = 1 | epoch(8) | nonce(12) | AES-256-GCM(SessionState.Bytes) incl. tag(16)
//
// with version and epoch as additional data. The binding travels in SessionState.Extra.
const (
	ticketVersion  = 1
	ticketHeader   = 1 + 8
	ticketOverhead = ticketHeader + 12 + 16
	maxTicketState = 8 << 10 // above this a session makes tickets that break the next connection
	dummyTicket    = 16      // bytes; an empty ticket breaks OpenSSL
)

// bindingTag begins our entry in SessionState.Extra: name and version. Others may append entries of their own.
const bindingTag = "sekisho\x01"

// binding is what a session is good for: one host with one CA set, one certificate, 18 hours.
type binding struct {
	session  site.Key         // host, mode and CA set
	leaf     pkix.Fingerprint // of the client's certificate; zero when it had none
	issued   int64            // Unix time of this ticket
	first    int64            // Unix time of the full handshake in which the key was proved
	notAfter int64            // Unix time when the path ends; 0 without a path
	id       pkix.CertID      // of the leaf; meaningful with a path
	hasPath  bool
}

func (b *binding) anonymous() bool { return b.leaf == pkix.Fingerprint{} }

// encode: tag | session(32) | leaf(32) | issued(8) | first(8) | notAfter(8) | issuer(32) | serial. No serial
// means no path.
func (b *binding) encode() []byte {
	out := []byte(bindingTag)
	out = append(out, b.session[:]...)
	out = append(out, b.leaf[:]...)
	for _, t := range []int64{b.issued, b.first, b.notAfter} {
		out = binary.BigEndian.AppendUint64(out, uint64(t))
	}
	out = append(out, b.id.Issuer[:]...)
	if b.hasPath {
		out = append(out, b.id.Serial.Bytes()...)
	}
	return out
}

// parseBinding finds our entry in a session's Extra; nil when there is none that can be read.
func parseBinding(extra [][]byte) *binding {
	const fixed = 32 + 32 + 3*8 + 32
	for _, e := range extra {
		in, ok := bytes.CutPrefix(e, []byte(bindingTag))
		if !ok || len(in) < fixed {
			continue
		}
		b := &binding{hasPath: len(in) > fixed}
		in = in[copy(b.session[:], in):]
		in = in[copy(b.leaf[:], in):]
		for _, t := range []*int64{&b.issued, &b.first, &b.notAfter} {
			*t = int64(binary.BigEndian.Uint64(in))
			in = in[8:]
		}
		in = in[copy(b.id.Issuer[:], in):]
		b.id.Serial = pkix.SerialFromBytes(in)
		return b
	}
	return nil
}

// wrap is the connection's tls.Config.WrapSession. On a resumed connection it runs before VerifyConnection in TLS 1.3,
// so everything but the time comes from the session that is resumed. It never fails: a client that gets no usable
// ticket makes a full handshake next time.
func (hs *handshake) wrap(cs tls.ConnectionState, state *tls.SessionState) ([]byte, error) {
	now := hs.server.cfg.Now()
	b := binding{session: hs.host.Session(), first: now.Unix()}
	if cs.DidResume && hs.resumed != nil {
		b = *hs.resumed
	} else if len(cs.PeerCertificates) > 0 {
		b.leaf = pkix.FingerprintOf(cs.PeerCertificates[0].Raw)
		if b.id, b.hasPath = hs.identity.CertID(); b.hasPath {
			b.notAfter = hs.identity.NotAfter().Unix()
		}
	}
	b.issued = now.Unix()
	state.Extra = append(state.Extra, b.encode())
	plain, err := state.Bytes()
	if err != nil || len(plain) > maxTicketState {
		return newDummyTicket(), nil
	}
	if ticket := hs.server.keys.wrap(now, plain); ticket != nil {
		return ticket, nil
	}
	return newDummyTicket(), nil
}

func newDummyTicket() []byte {
	ticket := make([]byte, dummyTicket)
	_, _ = rand.Read(ticket) // never fails
	return ticket
}

// unwrap is the connection's tls.Config.UnwrapSession. Everything that speaks against the session returns nil, which
// means a full handshake; an error would end the connection.
func (hs *handshake) unwrap(ticket []byte, _ tls.ConnectionState) (*tls.SessionState, error) {
	if len(ticket) == 0 {
		return nil, nil
	}
	state, b, refusal := hs.open(ticket)
	if refusal != "" {
		hs.server.counters.ticketsRefused.add(refusal)
		return nil, nil
	}
	hs.resumed = b
	return state, nil
}

func (hs *handshake) open(ticket []byte) (state *tls.SessionState, b *binding, refusal string) {
	if len(ticket) == dummyTicket {
		return nil, nil, "dummy"
	}
	plain := hs.server.keys.unwrap(ticket)
	if plain == nil {
		return nil, nil, "undecryptable"
	}
	state, err := tls.ParseSessionState(plain)
	if err != nil {
		return nil, nil, "malformed"
	}
	if b = parseBinding(state.Extra); b == nil {
		return nil, nil, "malformed"
	}
	return state, b, hs.judgeSession(b)
}

// judgeSession says why a session may not be resumed here and now; empty when it may.
func (hs *handshake) judgeSession(b *binding) string {
	now := hs.server.cfg.Now().Unix()
	life := int64(ticketLife / time.Second)
	switch {
	case b.session != hs.host.Session():
		return "other_host"
	case now-b.issued > life || now-b.first > life:
		return "too_old"
	case b.issued > now+int64(ticketEpoch/time.Second):
		return "from_the_future"
	case hs.host.AsksForCertificate() && b.anonymous():
		return "anonymous"
	case b.hasPath && now > b.notAfter:
		return "certificate_expired"
	}
	if b.hasPath {
		if hs.server.cfg.Verifier.RevokedNow(b.id) {
			return "certificate_revoked"
		}
	}
	return ""
}

// wrap seals a session under the key of the hour; nil when there is no key.
func (k *ticketKeys) wrap(now time.Time, plain []byte) []byte {
	epoch, key := k.current(now)
	if key == nil {
		return nil
	}
	out := make([]byte, 0, len(plain)+ticketOverhead)
	out = append(out, ticketVersion)
	out = binary.BigEndian.AppendUint64(out, uint64(epoch))
	return key.Seal(out, nil, plain, out[:ticketHeader])
}

// unwrap opens a ticket; nil when it is none of ours.
func (k *ticketKeys) unwrap(ticket []byte) []byte {
	if len(ticket) <= ticketOverhead || len(ticket) > maxTicketState+ticketOverhead || ticket[0] != ticketVersion {
		return nil
	}
	key := k.at(int64(binary.BigEndian.Uint64(ticket[1:ticketHeader])))
	if key == nil {
		return nil
	}
	plain, err := key.Open(nil, nil, ticket[ticketHeader:], ticket[:ticketHeader])
	if err != nil {
		return nil
	}
	return plain
}
