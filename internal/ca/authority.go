package ca

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sekisho/internal/ca/lint"
	"sekisho/internal/pkix"
)

// Names of the CA records that Init makes.
const (
	rootName    = "root"
	issuingName = "issuing"
)

// ActiveName is the name that always means the CA that issues; no CA has it for its own.
const ActiveName = "active"

// Keys makes and finds the private keys of the CAs. A key that Create returned is durable.
type Keys interface {
	// Create makes a key under a name that is not taken.
	Create(name string, t pkix.KeyType) (crypto.Signer, error)
	// Signer finds a key by its name.
	Signer(name string) (crypto.Signer, error)
	// Add stores a key that was made elsewhere, under a name that is not taken.
	Add(name string, key crypto.Signer) (crypto.Signer, error)
}

// Config is what an Authority needs. Zero fields have the default said beside them.
type Config struct {
	Ledger Ledger
	Keys   Keys
	// PKIURL is where the responder listens, as relying parties see it: http://127.0.0.1:8441. It goes into
	// certificates for good.
	PKIURL string
	// OnChange is told of every revocation, hold and reactivation after it is durable and before the caller of Revoke,
	// Hold or Reactivate has its answer. Calls for one certificate come one after another, in the order of the ledger;
	// the last one tells how it is. It must not call those three methods. nil: nobody.
	OnChange func(Certificate)
	Logger   *slog.Logger     // nil: slog.Default()
	Now      func() time.Time // nil: time.Now

	// PublishDir is where CRLs and CA certificates are written too, for a web server or a copy to elsewhere, and read back
	// at start; made when absent. "": nowhere.
	PublishDir string

	CRLLifetime     time.Duration // nextUpdate after thisUpdate; 24 h
	CRLOverlap      time.Duration // a CRL is renewed this long before nextUpdate; half of CRLLifetime
	OCSPLifetime    time.Duration // nextUpdate after thisUpdate; 1 h
	RootLifetime    time.Duration // 25 years
	IssuingLifetime time.Duration // 20 years, never beyond the root's
}

const (
	day  = 24 * time.Hour
	year = 365 * day
)

// withDefaults fills the zero fields and refuses contradictions.
func (c Config) withDefaults() (Config, error) {
	if c.Ledger == nil || c.Keys == nil {
		return c, errors.New("certificate authority: it needs a ledger and keys")
	}
	u, err := url.Parse(c.PKIURL)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") || u.RawQuery != "" || u.Fragment != "" {
		return c, fmt.Errorf("certificate authority: the PKI URL %q is not http://HOST:PORT", c.PKIURL)
	}
	c.PKIURL = strings.TrimRight(c.PKIURL, "/")
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	for _, d := range []struct {
		field    *time.Duration
		fallback time.Duration
	}{
		{&c.CRLLifetime, day}, {&c.OCSPLifetime, time.Hour}, {&c.RootLifetime, 25 * year}, {&c.IssuingLifetime, 20 * year},
	} {
		if *d.field == 0 {
			*d.field = d.fallback
		}
		if *d.field < time.Minute {
			return c, fmt.Errorf("certificate authority: the lifetime %v is shorter than a minute", *d.field)
		}
	}
	if c.CRLOverlap == 0 {
		c.CRLOverlap = c.CRLLifetime / 2
	}
	if c.CRLOverlap < 0 || c.CRLOverlap >= c.CRLLifetime {
		return c, fmt.Errorf("certificate authority: the CRL overlap %v is not between 0 and the lifetime %v", c.CRLOverlap, c.CRLLifetime)
	}
	return c, nil
}

// Authority is our own CAs: a root, an issuing CA below it, those that were before them or came from elsewhere, and
// everything they signed. It is safe for concurrent use.
type Authority struct {
	cfg    Config
	linter *lint.Linter

	initMu sync.Mutex // one Init, rotation or import at a time
	cas    atomic.Pointer[hierarchy]

	states    [64]sync.Mutex // held over a certificate's transition and its OnChange, by the certificate's id
	publisher publisher
	ocsp      ocspResponder
	counters  counters
}

// Open loads the CAs that the ledger has; that there are none yet is fine, see [Authority.Ready]. A CA whose key cannot
// be had is an error that names the key.
func Open(ctx context.Context, cfg Config) (*Authority, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	linter, err := lint.New()
	if err != nil {
		return nil, err
	}
	a := &Authority{cfg: cfg, linter: linter}
	a.publisher.init(a)
	a.ocsp.init(a)
	if err := a.load(ctx); err != nil {
		return nil, err
	}
	return a, nil
}

// CAs returns the records of all CAs, parents first.
func (a *Authority) CAs(ctx context.Context) ([]CARecord, error) { return a.cfg.Ledger.CAs(ctx) }

// CRLURL is where the CRL of a CA's shard is published; that of [AllShards] has the entries of all of them.
func (a *Authority) CRLURL(caID string, shard int) string { return crlURL(a.cfg.PKIURL, caID, shard) }

func crlURL(base, caID string, shard int) string {
	if shard == AllShards {
		return base + "/crl/" + caID + ".crl"
	}
	return base + "/crl/" + caID + "/" + strconv.Itoa(shard) + ".crl"
}

// DeltaCRLURL is where the delta to the CRL of a CA's shard is published.
func (a *Authority) DeltaCRLURL(caID string, shard int) string {
	return a.cfg.PKIURL + "/crl/" + caID + "/" + strconv.Itoa(shard) + "-delta.crl"
}

// OCSPURL is where OCSP requests go.
func (a *Authority) OCSPURL() string { return a.cfg.PKIURL + "/ocsp" }

// CAURL is where a CA's own certificate is published.
func (a *Authority) CAURL(caID string) string { return a.cfg.PKIURL + "/ca/" + caID + ".cer" }
