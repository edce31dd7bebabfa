package principal

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// ErrMalformed is returned for a credential that cannot be one: the wrong length or alphabet, a key without an e-mail or
// an e-mail without a key. It wraps [ErrUnauthenticated], so test for it first: Cloudflare answers it with status 400
// and code 6003, everything else with 10000.
var ErrMalformed = fmt.Errorf("malformed credential: %w", ErrUnauthenticated)

// secretBytes is the length of a secret: 40 letters and digits, as Cloudflare's, about 238 bits.
const secretBytes = 40

const (
	minSecret = 32
	maxSecret = 128
	maxEmail  = 254
)

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// Credentials is what a request presents; empty fields were absent. It prints without its secrets.
type Credentials struct {
	Bearer string // of "Authorization: Bearer …", without the scheme
	Email  string // X-Auth-Email
	Key    string // X-Auth-Key: the same token
}

// Format prints which fields are set, whatever the verb.
func (c Credentials) Format(f fmt.State, _ rune) { fmt.Fprint(f, c.describe()) }

// LogValue implements slog.LogValuer.
func (c Credentials) LogValue() slog.Value { return slog.StringValue(c.describe()) }

// MarshalText implements encoding.TextMarshaler, which encoding/json uses too.
func (c Credentials) MarshalText() ([]byte, error) { return []byte(c.describe()), nil }

func (c Credentials) describe() string {
	return fmt.Sprintf("credentials (bearer: %t, email: %q, key: %t)", c.Bearer != "", c.Email, c.Key != "")
}

// Authenticator tells who presents a credential. The zero value knows nobody and refuses all.
type Authenticator struct {
	tokens Tokens
}

// NewAuthenticator returns an authenticator of the given tokens.
func NewAuthenticator(tokens Tokens) *Authenticator { return &Authenticator{tokens} }

// Authenticate returns the caller that c proves at now. Errors are ErrMalformed, ErrUnauthenticated, or that tokens
// could not be read. With a Bearer token the other two fields are not looked at.
func (a *Authenticator) Authenticate(ctx context.Context, c Credentials, now time.Time) (Caller, error) {
	secret := c.Bearer
	switch {
	case c == Credentials{}:
		return Caller{}, ErrUnauthenticated
	case secret == "" && (c.Email == "" || c.Key == "" || len(c.Email) > maxEmail):
		return Caller{}, ErrMalformed
	case secret == "":
		secret = c.Key
	}
	if !wellFormed(secret) {
		return Caller{}, ErrMalformed
	}
	if a == nil || a.tokens == nil {
		return Caller{}, ErrUnauthenticated
	}
	// The look-up is by hash: how long it takes says nothing about the secret.
	t, err := a.tokens.TokenByHash(ctx, HashSecret(secret))
	switch {
	case errors.Is(err, ErrUnauthenticated):
		return Caller{}, ErrUnauthenticated
	case err != nil:
		return Caller{}, fmt.Errorf("principal: %w", err)
	case t.Expired(now),
		c.Bearer == "" && !sameEmail(c.Email, t.Email),
		t.Role != Read && t.Role != Edit:
		return Caller{}, ErrUnauthenticated
	}
	return Caller{Name: t.Name, Token: t, Role: t.Role}, nil
}

// Require returns ErrForbidden unless the caller's role includes role. The zero Caller has none.
func (c Caller) Require(role Role) error {
	if c.Role == Edit && (role == Read || role == Edit) || c.Role == Read && role == Read {
		return nil
	}
	return fmt.Errorf("%w: it is %q, %q is wanted", ErrForbidden, string(c.Role), string(role))
}

// NewToken makes a token and its secret, which is shown to its owner once and never stored. name is for the audit log;
// email may be empty, then the token works as Bearer only. The caller may set ExpiresOn before storing it.
func NewToken(name, email string, role Role) (secret string, t Token, err error) {
	switch {
	case name == "":
		return "", Token{}, errors.New("principal: a token needs a name, for the audit log")
	case role != Read && role != Edit:
		return "", Token{}, fmt.Errorf("principal: token %q: role %q: it is %q or %q", name, string(role), Read, Edit)
	case len(email) > maxEmail || email != "" && !strings.Contains(email, "@"):
		return "", Token{}, fmt.Errorf("principal: token %q: %.80q is no e-mail address", name, email)
	}
	secret = newSecret()
	id := make([]byte, 16)
	rand.Read(id)
	return secret, Token{
		ID: hex.EncodeToString(id), Name: name, Email: email, Role: role,
		Hash: HashSecret(secret), CreatedOn: time.Now().UTC().Truncate(time.Microsecond),
	}, nil
}

// HashSecret is what is stored of a secret. A plain SHA-256 is enough: secrets are random, so there is nothing to guess.
func HashSecret(secret string) [32]byte { return sha256.Sum256([]byte(secret)) }

// newSecret draws letters and digits evenly: octets of 248 and above, the remainder of 256 over 62, are dropped.
func newSecret() string {
	out := make([]byte, 0, secretBytes)
	var buf [2 * secretBytes]byte
	for len(out) < secretBytes {
		rand.Read(buf[:])
		for _, b := range buf {
			if b < 248 && len(out) < secretBytes {
				out = append(out, base62[b%62])
			}
		}
	}
	return string(out)
}

func wellFormed(secret string) bool {
	if len(secret) < minSecret || len(secret) > maxSecret {
		return false
	}
	for _, c := range []byte(secret) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}

// sameEmail compares without regard to case, in time that depends on the lengths only. No e-mail is the same as none.
func sameEmail(a, b string) bool {
	x, y := sha256.Sum256([]byte(strings.ToLower(a))), sha256.Sum256([]byte(strings.ToLower(b)))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1 && b != ""
}
