package ca

import (
	"context"
	"errors"
	"iter"
	"math/big"
	"time"

	"sekisho/internal/auditlog"
	"sekisho/internal/pkix"
)

// Errors of the ledger, to branch on.
var (
	// ErrNotFound: no such certificate or CA.
	ErrNotFound = errors.New("not found")
	// ErrConflict: the object was not in a state from which this step is possible.
	ErrConflict = errors.New("conflict")
	// ErrSerialTaken: the issuer has a certificate with that serial already.
	ErrSerialTaken = errors.New("serial already used by this issuer")
	// ErrKeyBlocked: the public key was revoked for keyCompromise and is never certified again.
	ErrKeyBlocked = errors.New("public key is blocked after a key compromise")
)

// Status is the state of an issued certificate in the ledger.
type Status string

// The states. A certificate on hold is Revoked with reason certificateHold. Expiry is no state: it follows from notAfter.
const (
	Active  Status = "active"
	Revoked Status = "revoked"
)

// Certificate is a row of the ledger: one certificate that one of our CAs signed.
type Certificate struct {
	ID         string // UUID
	ZoneID     string // 32 lower hex; empty for certificates of the house itself (server, OCSP signer)
	CAID       string // the issuing CA's record
	Profile    string // client, server, ocsp; unknown for one of which only a CRL told
	IssuerKey  pkix.KeyID
	Serial     pkix.Serial
	Shard      int    // CRL shard, fixed at issue time and named in the certificate's CRL distribution point
	DER        []byte // empty: the certificate itself is not known (a CRL of another system or the journal told of it)
	CSR        []byte // PEM as the applicant sent it; empty when we made the key
	KeyHash    pkix.KeyID
	CommonName string
	NotBefore  time.Time
	NotAfter   time.Time
	IssuedOn   time.Time
	ValidDays  int
	Status     Status
	Reason     pkix.Reason // meaningful when revoked
	RevokedAt  time.Time   // meaningful when revoked
	// InvalidityDate is since when the key is thought to be compromised (RFC 5280, Section 5.3.2); zero: not said.
	InvalidityDate time.Time
	CRLNumber      int64 // number of the CRL of the shard that tells of the last transition; 0 before any
	Fingerprint    pkix.Fingerprint
}

// CertID names the certificate as the edge and the revocation index do.
func (c Certificate) CertID() pkix.CertID { return pkix.CertID{Issuer: c.IssuerKey, Serial: c.Serial} }

// ProfileUnknown is the profile of a certificate of which only a CRL told: its serial number is known and no more.
const ProfileUnknown = "unknown"

// KeyKnown reports whether KeyHash is that of the certificate's key.
func (c Certificate) KeyKnown() bool { return len(c.DER) > 0 || c.Profile != ProfileUnknown }

// OnHold reports whether the certificate is revoked in the one way that can be undone.
func (c Certificate) OnHold() bool { return c.Status == Revoked && c.Reason == pkix.CertificateHold }

// CARecord is one of our CAs in the ledger: its certificate and where its key is.
type CARecord struct {
	ID        string // 32 lower hex
	Name      string // unique: "root", "issuing", "issuing-2", or as it was imported
	Parent    string // id of the issuing CA; empty for a root, and for one that was imported
	KeyName   string // name in the keystore; empty: the key is elsewhere
	DER       []byte
	CreatedOn time.Time
	Shards    int // how many CRL shards its certificates name; at least 1

	Role      Role   // empty: by Parent
	Retired   bool   // it issues no more, but still publishes what is revoked
	Imported  bool   // it was made elsewhere
	Untrusted bool   // hosts do not let its clients in as those of the managed CA
	Extra     []byte // DER certificates one after another, to send along: cross certificates of a root, the chain of an imported CA
	Signer    Signer // signs OCSP answers; zero: a delegate of our own making
	List      List   // the newest CRL of the CA that was imported; zero: none
}

// Role is what a CA is for.
type Role string

// The roles.
const (
	RoleRoot    Role = "root"    // signs CAs
	RoleIssuing Role = "issuing" // signs certificates of clients and servers
)

// Signer is a delegated OCSP signer (RFC 6960, Section 4.2.2.2) that was made elsewhere.
type Signer struct {
	DER     []byte
	KeyName string // name in the keystore
}

// List says which CRL of another system was imported last.
type List struct {
	Number     string // decimal; empty: it had none
	ThisUpdate time.Time
}

// Filter selects certificates of the ledger. Zero fields do not filter.
type Filter struct {
	ZoneID      string
	Status      Status
	Profile     string
	Serial      *pkix.Serial
	Fingerprint *pkix.Fingerprint
	CommonName  string      // exact
	Name        string      // a subject alternative name: host name, address, e-mail address or URI, exact but for case; ".example.com": every host below
	Key         *pkix.KeyID // the public key
	CAID        string
	OnHold      bool // revoked with certificateHold only
	// ExpiresFrom and ExpiresBefore bound notAfter: from (inclusive), before (exclusive). With either of them the rows come
	// soonest to end first, unless Order says otherwise.
	ExpiresFrom, ExpiresBefore time.Time
	Range
	Limit  int // at most this many; 0 means 50, at most 1000
	Offset int
}

// Transition is one compare-and-swap step of a certificate's state.
type Transition struct {
	ID     string      // certificate id
	ZoneID string      // when set, the certificate must belong to it, else ErrNotFound
	To     Status      // Revoked or Active
	Reason pkix.Reason // for Revoked
	At     time.Time
	// InvalidityDate, for Revoked, replaces the row's; zero leaves it.
	InvalidityDate time.Time
	// Block, with Revoked, also blocks the public key for good (keyCompromise), and every other certificate of it that is
	// active or on hold, whoever's it is, is revoked for the same reason.
	Block bool
}

// Ledger is the durable record of what our CAs signed and revoked. Every method that writes is durable (fsynced)
// before it returns nil, writes entry to the audit log in the same transaction, and leaves nothing behind when it
// returns an error. Implementations are safe for concurrent use.
type Ledger interface {
	// AddCA stores a new CA. It returns ErrConflict when a CA of that name exists.
	AddCA(ctx context.Context, r CARecord, entry auditlog.Entry) error
	// ChangeCAs stores all of a change or nothing of it. It returns ErrConflict when a name or id is taken, ErrNotFound
	// for an update of a CA that is not there, ErrSerialTaken for a certificate that is.
	ChangeCAs(ctx context.Context, change CAChange, entry auditlog.Entry) error
	// CACounts returns how many certificates each CA has, by its id.
	CACounts(ctx context.Context) (map[string]CACount, error)
	// CAs returns all CAs, parents first.
	CAs(ctx context.Context) ([]CARecord, error)

	// RecordCertificate stores a certificate before it may leave the process. It returns ErrSerialTaken or ErrKeyBlocked.
	RecordCertificate(ctx context.Context, c Certificate, entry auditlog.Entry) error
	// Certificate returns one row, or ErrNotFound. zoneID, when set, must match.
	Certificate(ctx context.Context, zoneID, id string) (Certificate, error)
	// CertificateByID returns the row of an issuer's serial, or ErrNotFound.
	CertificateByID(ctx context.Context, id pkix.CertID) (Certificate, error)
	// Certificates returns the rows that match, newest first, and how many match in all, as Found.Total does.
	Certificates(ctx context.Context, f Filter) (rows []Certificate, total int, err error)
	// Search is Certificates that also says whether the total is exact. It returns ErrTooWide or ErrNamesPending.
	Search(ctx context.Context, f Filter) (Found, error)
	// KeyBlocked reports whether a public key was blocked.
	KeyBlocked(ctx context.Context, key pkix.KeyID) (bool, error)

	// ImportCertificates stores certificates that others recorded, all or none; entries are theirs, one each. The answer
	// says of each what was done, in their order. It returns ErrSerialTaken when a serial has another certificate.
	ImportCertificates(ctx context.Context, certs []Certificate, entries []auditlog.Entry) ([]Imported, error)
	// ImportList makes the ledger say what a CRL of another system says, in one transaction, and returns the rows that
	// changed, as Apply does, those that are new among them. It returns ErrConflict when step.List is not newer than the CA's.
	ImportList(ctx context.Context, step ListImport, entry auditlog.Entry) (changed []Certificate, err error)

	// Apply performs a transition and returns the row after it, and the other rows that it changed (see
	// Transition.Block), each with an entry of its own in the audit log: a copy of entry with the row's id as object and
	// the id of the transition in its detail same_key_as. The CRL number of a row's (CA, shard) is raised by one for each
	// row in the same transaction and stored in the row. From Active to Revoked; from Revoked with certificateHold to
	// Active, or to Revoked with another reason (final), which keeps RevokedAt: nothing between the hold and now is good
	// after all; from Revoked with any other reason to keyCompromise, which keeps it too. Anything else is ErrConflict,
	// with the row as it is.
	Apply(ctx context.Context, t Transition, entry auditlog.Entry) (row Certificate, sameKey []Certificate, err error)

	// Revoked yields every revoked certificate of a CA's shard that expired no earlier than since, in no order, from
	// one consistent view, together with the CRL number of that view. caID "" means every CA (and number is 0); shard
	// -1 means every shard. The error ends the sequence.
	Revoked(ctx context.Context, caID string, shard int, since time.Time) (number int64, rows iter.Seq2[RevokedRow, error], err error)
	// Changed yields every certificate of a CA's shard whose CRLNumber is above base, in no order, from one consistent
	// view, together with the CRL number of that view: revoked ones as Revoked does, however long ago they expired, those
	// that are active again with the reason removeFromCRL and no times but NotAfter. The error ends the sequence.
	Changed(ctx context.Context, caID string, shard int, base int64) (number int64, rows iter.Seq2[RevokedRow, error], err error)
	// RaiseCRLNumber raises the CRL number of a shard by one, for a CRL that is renewed without a revocation. Shard
	// [AllShards] has a sequence of its own. With a time the new number is kept as a base for deltas, together with the
	// CRLBasesKept-1 before it.
	RaiseCRLNumber(ctx context.Context, caID string, shard int, keep time.Time) (int64, error)
	// CRLBases returns the CRL number of a shard, 0 before the first, and the kept ones in the order of their numbers.
	CRLBases(ctx context.Context, caID string, shard int) (number int64, kept []CRLBase, err error)

	// UsePKIURL makes an address the newest of PKIURLs.
	UsePKIURL(ctx context.Context, url string) error
	// PKIURLs returns every address that certificates may name as the place of CRLs, newest first.
	PKIURLs(ctx context.Context) ([]string, error)
}

// AllShards stands for the list of a CA that has the entries of all its shards.
const AllShards = -1

// CRLBasesKept is how many numbers a ledger keeps for each shard as bases of deltas.
const CRLBasesKept = 8

// CRLBase is a CRL number that a delta may start from: every CRL signed after At has that number or a higher one.
type CRLBase struct {
	Number int64
	At     time.Time
}

// RevokedRow is the small part of a row that CRLs and the revocation index need.
type RevokedRow struct {
	ID       pkix.CertID
	Reason   pkix.Reason
	At       time.Time
	NotAfter time.Time
	// InvalidityDate is as in Certificate.
	InvalidityDate time.Time
}

// CRL is one published certificate revocation list.
type CRL struct {
	CAID       string
	Shard      int // AllShards: the list of all shards
	Number     *big.Int
	Base       *big.Int // of a delta: the number of the oldest full CRL that it may be used with; nil: a full CRL
	DER        []byte
	ThisUpdate time.Time
	NextUpdate time.Time
	ETag       string // quoted, for HTTP
}
