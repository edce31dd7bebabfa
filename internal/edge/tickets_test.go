package edge

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sekisho/internal/identity"
	"sekisho/internal/site"
	"sekisho/internal/testpki"
)

var tlsVersions = map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13}

// session dials twice with one session cache: a first time to get a ticket, then, after between, again. It returns the
// second connection and whether it was resumed.
func (c *checkpoint) session(version uint16, first, second *testpki.Leaf, secondName string, between func()) (*tls.Conn, error) {
	c.t.Helper()
	cache := &oneSession{}
	config := func(leaf *testpki.Leaf, name string) *tls.Config {
		return c.config(leaf, func(t *tls.Config) {
			t.MinVersion, t.MaxVersion = version, version
			t.ServerName = name
			t.ClientSessionCache = cache
		})
	}
	conn := c.mustDial(config(first, "a.example"))
	if conn.ConnectionState().DidResume {
		c.t.Fatal("the first connection was resumed")
	}
	c.mustAsk(conn, "/") // reads the ticket of TLS 1.3
	if cache.get() == nil {
		c.t.Fatal("no ticket")
	}
	between()
	return c.dial(config(second, secondName))
}

// oneSession is a session cache that offers its ticket to every host, as an attacker would.
type oneSession struct {
	mu    sync.Mutex
	state *tls.ClientSessionState
}

func (o *oneSession) get() *tls.ClientSessionState {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.state
}

func (o *oneSession) Get(string) (*tls.ClientSessionState, bool) {
	s := o.get()
	return s, s != nil
}

func (o *oneSession) Put(_ string, s *tls.ClientSessionState) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if s != nil {
		o.state = s
	}
}

func TestInvariant03TicketResumesNothingElse(t *testing.T) {
	type world struct {
		c     *checkpoint
		leaf  testpki.Leaf
		other *testpki.CA
	}
	cases := []struct {
		name    string
		to      string // host of the second connection
		between func(w world)
		resumed bool
		refused string // ticket refusal counted
		answer  string
	}{
		{name: "same host", to: "a.example", resumed: true, answer: "hello  resumed=true\n"},
		{name: "other host", to: "b.example", refused: "other_host", answer: "hello  resumed=false\n"},
		{
			name: "other CA set", to: "a.example", refused: "other_host", answer: "hello  resumed=false\n",
			between: func(w world) {
				w.c.use(w.c.host("a.example", site.Require, w.c.ca, w.other), w.c.host("b.example", site.Require))
			},
		},
		{
			name: "CA removed", to: "a.example", refused: "other_host", answer: reasonIs(identity.Untrusted),
			between: func(w world) {
				w.c.use(w.c.host("a.example", site.Require, w.other), w.c.host("b.example", site.Require))
			},
		},
		{
			name: "revoked", to: "a.example", refused: "certificate_revoked", answer: reasonIs(identity.Revoked),
			between: func(w world) { w.c.revoke(w.leaf) },
		},
		{
			name: "revoked and reactivated", to: "a.example", resumed: true, answer: "hello  resumed=true\n",
			between: func(w world) { w.c.revoke(w.leaf); w.c.reactivate(w.leaf) },
		},
		{
			name: "18 hours", to: "a.example", resumed: true, answer: "hello  resumed=true\n",
			between: func(w world) { w.c.clock.advance(ticketLife - time.Minute) },
		},
		{
			name: "18 hours and a second", to: "a.example", refused: "too_old", answer: "hello  resumed=false\n",
			between: func(w world) { w.c.clock.advance(ticketLife + time.Second) },
		},
		{
			name: "certificate expired", to: "a.example", answer: reasonIs(identity.Expired), refused: "certificate_expired",
			between: func(w world) { w.c.clock.advance(2 * time.Hour) },
		},
	}
	for versionName, version := range tlsVersions {
		for _, tc := range cases {
			t.Run(versionName+"/"+tc.name, func(t *testing.T) {
				c := newCheckpoint(t, func(c *checkpoint) []*site.Host {
					return []*site.Host{c.host("a.example", site.Require), c.host("b.example", site.Require)}
				})
				life := 48 * time.Hour
				if tc.name == "certificate expired" {
					life = time.Hour
				}
				w := world{c: c, leaf: c.ca.Client("client", testpki.NotAfter(time.Now().Add(life))), other: testpki.NewCA(t)}
				conn, err := c.session(version, &w.leaf, &w.leaf, tc.to, func() {
					if tc.between != nil {
						tc.between(w)
					}
				})
				if err != nil {
					t.Fatal(err)
				}
				if got := conn.ConnectionState().DidResume; got != tc.resumed {
					t.Errorf("resumed: %v, want %v", got, tc.resumed)
				}
				if _, body := c.mustAsk(conn, "/"); body != tc.answer {
					t.Errorf("answer %q, want %q", body, tc.answer)
				}
				if tc.refused != "" && c.s.ConnectionMetrics().TicketsRefused[tc.refused] == 0 {
					t.Errorf("tickets refused: %v, want %s", c.s.ConnectionMetrics().TicketsRefused, tc.refused)
				}
			})
		}
	}
}

// A chain of resumptions ends 18 hours after the key was proved, however fresh the last ticket is.
func TestInvariant03ChainOfResumptionsEnds(t *testing.T) {
	for versionName, version := range tlsVersions {
		t.Run(versionName, func(t *testing.T) {
			c := newCheckpoint(t, require)
			leaf := c.ca.Client("client", testpki.NotAfter(time.Now().Add(48*time.Hour)))
			cache := &oneSession{}
			cfg := c.config(&leaf, func(t *tls.Config) {
				t.MinVersion, t.MaxVersion, t.ClientSessionCache = version, version, cache
			})
			for hour := range 20 {
				if hour == 18 {
					c.clock.advance(time.Second)
				}
				conn := c.mustDial(cfg)
				c.mustAsk(conn, "/")
				if got, want := conn.ConnectionState().DidResume, hour != 0 && hour != 18; got != want {
					t.Errorf("hour %d: resumed %v, want %v", hour, got, want)
				}
				_ = conn.Close()
				if err := c.s.keys.rotate(t.Context(), c.clock.now()); err != nil {
					t.Fatal(err)
				}
				c.clock.advance(time.Hour)
			}
			if n := len(*c.s.keys.ring.Load()); n > int(ticketEpochs)+2 {
				t.Errorf("%d ticket keys in memory", n)
			}
		})
	}
}

func TestInvariant03AnonymousSessionIsNotResumed(t *testing.T) {
	for versionName, version := range tlsVersions {
		t.Run(versionName, func(t *testing.T) {
			c := newCheckpoint(t, func(c *checkpoint) []*site.Host { return []*site.Host{c.host("a.example", site.Request)} })
			leaf := c.ca.Client("client")
			conn, err := c.session(version, nil, &leaf, "a.example", func() {})
			if err != nil {
				t.Fatal(err)
			}
			if conn.ConnectionState().DidResume {
				t.Error("the anonymous session was resumed")
			}
			if _, body := c.mustAsk(conn, "/"); body != "hello  resumed=false\n" {
				t.Errorf("answer %q: the certificate was not asked for", body)
			}
			if c.s.ConnectionMetrics().TicketsRefused["anonymous"] != 1 {
				t.Errorf("tickets refused: %v", c.s.ConnectionMetrics().TicketsRefused)
			}
		})
	}
}

func TestAnonymousSessionResumesWhereNobodyIsAsked(t *testing.T) {
	c := newCheckpoint(t, func(c *checkpoint) []*site.Host { return []*site.Host{c.host("a.example", site.Off)} })
	conn, err := c.session(tls.VersionTLS13, nil, nil, "a.example", func() {})
	if err != nil {
		t.Fatal(err)
	}
	if !conn.ConnectionState().DidResume {
		t.Error("not resumed")
	}
}

// A revoked certificate on a host that refuses in the handshake: neither its ticket nor a full handshake lets it in.
func TestInvariant01TicketOfRevokedCertificateGetsAlert(t *testing.T) {
	for versionName, version := range tlsVersions {
		t.Run(versionName, func(t *testing.T) {
			c := newCheckpoint(t, alerting)
			leaf := c.ca.Client("client")
			conn, err := c.session(version, &leaf, &leaf, "a.example", func() { c.revoke(leaf) })
			if err == nil {
				_, _, err = ask(conn, "/")
			}
			if err == nil || !strings.Contains(err.Error(), "bad certificate") {
				t.Errorf("error %v, want the alert bad_certificate", err)
			}
			eventually(t, "no live connection", func() bool { return c.s.Live() == 0 })
		})
	}
}

// An epoch that changes between Unwrap and VerifyConnection is caught by the check in VerifyConnection: simulated by a
// session whose path goes through an intermediate that is revoked, which the ticket does not name.
func TestRevokedIntermediateEndsSessions(t *testing.T) {
	c := newCheckpoint(t, require)
	sub := c.ca.Intermediate("sub")
	leaf := sub.Client("client")
	conn, err := c.session(tls.VersionTLS13, &leaf, &leaf, "a.example", func() {
		subLeaf := testpki.Leaf{Cert: sub.Cert}
		if n := c.revoke(subLeaf); n != 1 {
			t.Errorf("%d connections cut, want 1", n)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, body := c.mustAsk(conn, "/"); body != reasonIs(identity.Revoked) {
		t.Errorf("answer %q", body)
	}
}

func TestOpenSSLResumes(t *testing.T) {
	c := newCheckpoint(t, require)
	leaf := c.ca.Client("client")
	cert, key := files(t, leaf)
	common := []string{"s_client", "-connect", c.addr, "-servername", "a.example", "-cert", cert, "-key", key}

	out := openssl(t, strings.NewReader(""), append(common, "-reconnect", "-tls1_2")...)
	if n, r := strings.Count(out, "New, TLSv1.2"), strings.Count(out, "Reused, TLSv1.2"); n != 1 || r != 5 {
		t.Errorf("TLS 1.2: %d New, %d Reused, want 1 and 5\n%s", n, r, out)
	}

	sess := filepath.Join(t.TempDir(), "s")
	openssl(t, whenWritten{sess}, append(common, "-sess_out", sess)...)
	out = openssl(t, strings.NewReader(""), append(common, "-sess_in", sess)...)
	if !strings.Contains(out, "Reused, TLSv1.3") {
		t.Errorf("TLS 1.3 with -sess_in: not Reused\n%s", out)
	}
	c.revoke(leaf)
	out = openssl(t, strings.NewReader(""), append(common, "-sess_in", sess)...)
	if strings.Contains(out, "Reused, TLSv1.3") {
		t.Errorf("Reused after the revocation\n%s", out)
	}
}

// whenWritten is a standard input that ends when the session is in its file: TLS 1.3 sends tickets after the handshake.
type whenWritten struct{ file string }

func (s whenWritten) Read([]byte) (int, error) {
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if text, err := os.ReadFile(s.file); err == nil && strings.Contains(string(text), "END SSL SESSION PARAMETERS") {
			break
		}
	}
	return 0, io.EOF
}

// memoryTickets is a TicketStore like the real one.
type memoryTickets struct {
	mu   sync.Mutex
	keys map[int64][]byte
	fail error
}

func (m *memoryTickets) TicketKeys(_ context.Context, from int64) (map[int64][]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := maps.Clone(m.keys)
	maps.DeleteFunc(out, func(e int64, _ []byte) bool { return e < from })
	return out, m.fail
}

func (m *memoryTickets) AddTicketKey(_ context.Context, epoch int64, sealed []byte) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.keys[epoch] == nil {
		m.keys[epoch] = sealed
	}
	return m.keys[epoch], m.fail
}

func (m *memoryTickets) DropTicketKeys(_ context.Context, before int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.keys, func(e int64, _ []byte) bool { return e < before })
	return m.fail
}

// xorSealer is no cryptography; it shows that sealing, opening and the context are used.
type xorSealer struct{}

func (xorSealer) Seal(plain, context []byte) ([]byte, error) {
	out := bytes.Clone(context)
	for _, b := range plain {
		out = append(out, b^0x5a)
	}
	return out, nil
}

func (xorSealer) Open(sealed, context []byte) ([]byte, error) {
	in, ok := bytes.CutPrefix(sealed, context)
	if !ok {
		return nil, errors.New("sealed for something else")
	}
	in = bytes.Clone(in)
	for i := range in {
		in[i] ^= 0x5a
	}
	return in, nil
}

func TestTicketKeysSurviveRestart(t *testing.T) {
	store := &memoryTickets{keys: map[int64][]byte{}}
	now := time.Unix(1_800_000_000, 0)
	first := newTicketKeys(store, xorSealer{})
	if err := first.rotate(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	if len(store.keys) != 2 {
		t.Fatalf("%d keys stored, want this hour's and the next's", len(store.keys))
	}
	ticket := first.wrap(now, []byte("state"))
	second := newTicketKeys(store, xorSealer{})
	if err := second.rotate(t.Context(), now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if got := second.unwrap(ticket); string(got) != "state" {
		t.Errorf("after a restart: %q", got)
	}
	for i := range ticket {
		bad := bytes.Clone(ticket)
		bad[i] ^= 1
		if second.unwrap(bad) != nil {
			t.Errorf("a ticket with byte %d changed is opened", i)
		}
	}
	if err := second.rotate(t.Context(), now.Add(19*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if second.unwrap(ticket) != nil || store.keys[epochAt(now)] != nil {
		t.Error("the key outlived its 18 hours")
	}
	store.fail = errors.New("disk gone")
	third := newTicketKeys(store, xorSealer{})
	if err := third.rotate(t.Context(), now); !errors.Is(err, errStore) {
		t.Errorf("error %v, want one of the store", err)
	}
	if third.unwrap(third.wrap(now, []byte("x"))) == nil {
		t.Error("without the store there are no tickets at all")
	}
}

func FuzzUnwrap(f *testing.F) {
	keys := newTicketKeys(nil, nil)
	now := time.Unix(1_800_000_000, 0)
	if err := keys.rotate(context.Background(), now); err != nil {
		f.Fatal(err)
	}
	f.Add(keys.wrap(now, []byte("state")))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, ticket []byte) {
		keys.unwrap(ticket)
		if b := parseBinding([][]byte{ticket}); b != nil && !bytes.Equal(b.encode(), ticket) && !b.id.Serial.IsZero() && ticket[len(ticket)-1] != 0 {
			// Leading zeros of the serial are the one thing that may differ.
			if len(b.encode()) > len(ticket) {
				t.Errorf("binding grew: %x -> %x", ticket, b.encode())
			}
		}
	})
}

// A session that is too large gets a ticket that resumes nothing and breaks nothing.
func TestLargeClientChain(t *testing.T) {
	for versionName, version := range tlsVersions {
		t.Run(versionName, func(t *testing.T) {
			c := newCheckpoint(t, require)
			leaf := c.ca.Client("client")
			fat := testpki.NewCA(t, testpki.Name(strings.Repeat("x", 60)), testpki.Edit(func(c *x509.Certificate) {
				for range 600 {
					c.OCSPServer = append(c.OCSPServer, "http://"+strings.Repeat("a", 50)+".example")
				}
			}))
			cert := leaf.TLS()
			for range 2 {
				cert.Certificate = append(cert.Certificate, fat.Cert.Raw)
			}
			cache := &oneSession{}
			cfg := c.config(nil, func(t *tls.Config) {
				t.MinVersion, t.MaxVersion, t.ClientSessionCache = version, version, cache
				t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
			})
			for i := range 3 {
				conn := c.mustDial(cfg)
				if status, body := c.mustAsk(conn, "/"); status != 200 {
					t.Errorf("connection %d: %d %q", i, status, body)
				}
				if conn.ConnectionState().DidResume {
					t.Error("resumed")
				}
			}
			if n := c.s.ConnectionMetrics().TicketsRefused["dummy"]; n != 2 {
				t.Errorf("%d dummy tickets came back, want 2 (%v)", n, c.s.ConnectionMetrics().TicketsRefused)
			}
		})
	}
}
