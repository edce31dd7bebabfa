// Package principal says who calls the admin API and what they may do: tokens, roles and the [Caller].
//
// Tokens are random; only their SHA-256 is stored. A token is presented as a Bearer token or, as the older Cloudflare
// clients do, as X-Auth-Key together with its owner's X-Auth-Email.
package principal

import (
	"context"
	"errors"
	"time"
)

// Role is what a token may do. Each role includes the ones before it.
type Role string

// The roles.
const (
	Read Role = "read" // GET
	Edit Role = "edit" // everything
)

// Token is a stored credential; the secret itself is known only to its owner.
type Token struct {
	ID        string // 32 lower hex
	Name      string
	Email     string // the owner's, demanded with X-Auth-Email
	Role      Role
	Hash      [32]byte // SHA-256 of the secret
	CreatedOn time.Time
	ExpiresOn time.Time // zero: never
}

// Caller is an authenticated principal. The zero Caller may do nothing.
type Caller struct {
	Name  string // for the audit log
	Token Token
	Role  Role
}

// ErrUnauthenticated is returned for an absent, unknown, expired or malformed credential. Its text never tells which.
var ErrUnauthenticated = errors.New("authentication error")

// ErrForbidden is returned when the caller's role does not allow the action.
var ErrForbidden = errors.New("the token's role does not allow this")

var (
	// ErrNoToken is returned when there is no token with that id.
	ErrNoToken = errors.New("no such token")
	// ErrLastEditToken is returned for the removal of the last token of role edit: nobody could change anything any more.
	ErrLastEditToken = errors.New("it is the last token of role edit")
)

// Expired reports whether the token no longer works at now.
func (t Token) Expired(now time.Time) bool { return !t.ExpiresOn.IsZero() && !now.Before(t.ExpiresOn) }

// Tokens is where an [Authenticator] looks tokens up; store implements it.
type Tokens interface {
	// TokenByHash returns the token with that hash, or an error wrapping ErrUnauthenticated.
	TokenByHash(ctx context.Context, hash [32]byte) (Token, error)
}
