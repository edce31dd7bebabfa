package admin

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"sekisho/internal/principal"
)

// guard stands before every route: it sets the security headers, refuses what a browser was tricked into sending, and
// forgives a trailing or a doubled slash.
func (s *server) guard(next http.Handler) http.Handler {
	crossOrigin := http.NewCrossOriginProtection()
	crossOrigin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, r, failed{action: "admin.call", start: s.Now(), err: refuse(http.StatusForbidden, codeAuthentication,
			"refused: a browser sent this for another origin; the API takes no cross-origin requests")})
	}))
	inner := crossOrigin.Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("Referrer-Policy", "no-referrer")
		if !s.hostAllowed(r) {
			s.fail(w, r, failed{action: "admin.call", start: s.Now(), err: refuse(http.StatusForbidden, codeAuthentication,
				"refused: this is not the API of the host "+clip(r.Host, 100)+"; call it as localhost or 127.0.0.1, or name the host in the configuration")})
			return
		}
		clean := *r.URL
		clean.Path, clean.RawPath = path.Clean("/"+r.URL.Path), ""
		r2 := r.WithContext(r.Context())
		r2.URL = &clean
		inner.ServeHTTP(w, r2)
	})
}

// hostAllowed refuses DNS rebinding: a page of evil.example whose name was made to resolve to 127.0.0.1 still says
// Host: evil.example. It matters where being on the machine means something, so on loopback only.
func (s *server) hostAllowed(r *http.Request) bool {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return true
	}
	if addr, err := netip.ParseAddrPort(local.String()); err != nil || !addr.Addr().Unmap().IsLoopback() {
		return true
	}
	host := strings.ToLower(r.Host)
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.Trim(host, "[]"), ".")
	return isLoopback(host) || slices.ContainsFunc(s.Hostnames, func(n string) bool { return strings.EqualFold(n, host) })
}

// authenticate finds out who calls. A wrong credential costs its sender time once it has used up its patience.
func (s *server) authenticate(r *http.Request) (principal.Caller, error) {
	credentials, err := credentialsOf(r.Header)
	if err != nil {
		return principal.Caller{}, err
	}
	if credentials == (principal.Credentials{}) {
		return principal.Caller{}, principal.ErrUnauthenticated
	}
	caller, err := s.Authenticator.Authenticate(r.Context(), credentials, s.Now())
	if err == nil {
		return caller, nil
	}
	if !s.failures.allow(r.Context(), r.RemoteAddr) {
		return principal.Caller{}, &refusal{
			status:   http.StatusTooManyRequests,
			problems: []problem{{Code: codeAuthentication, Message: "Authentication error: too many wrong credentials"}},
			cause:    err,
		}
	}
	if errors.Is(err, principal.ErrMalformed) && credentials.Bearer != "" {
		return principal.Caller{}, badAuthorization()
	} else if errors.Is(err, principal.ErrMalformed) {
		return principal.Caller{}, badKey()
	}
	return principal.Caller{}, err
}

func badAuthorization() *refusal {
	return badHeaders(link{codeAuthorization, "Invalid format for Authorization header"})
}

func badKey() *refusal { return badHeaders(link{codeKey, "Invalid format for X-Auth-Key header"}) }

// credentialsOf reads the two ways in which Cloudflare's clients present a credential.
func credentialsOf(h http.Header) (principal.Credentials, error) {
	authorization := h.Get("Authorization")
	email, key := h.Get("X-Auth-Email"), h.Get("X-Auth-Key")
	if authorization != "" {
		scheme, token, _ := strings.Cut(authorization, " ")
		token = strings.TrimSpace(token)
		if !strings.EqualFold(scheme, "Bearer") || token == "" || strings.ContainsAny(token, " \t,") {
			return principal.Credentials{}, badAuthorization()
		}
		return principal.Credentials{Bearer: token}, nil
	}
	switch {
	case email != "" && key == "":
		return principal.Credentials{}, badKey()
	case email == "" && key != "", email != "" && !strings.Contains(email, "@"):
		return principal.Credentials{}, badHeaders(link{codeEmail, "Invalid format for X-Auth-Email header"})
	}
	return principal.Credentials{Email: email, Key: key}, nil
}

const (
	patience    = 200                    // wrong credentials from one address before answers are held back
	forgiveness = time.Second            // one of them is forgotten in this time
	holdBack    = 250 * time.Millisecond // how late an answer comes then
	maxHeld     = 32                     // answers held back at once
	maxTracked  = 1024                   // addresses remembered
)

// failures slows down who guesses. A right credential is never slowed, also not from the same address: tokens are too
// long to be guessed, so locking somebody out would hurt more than it helps.
type failures struct {
	now  func() time.Time
	held chan struct{}

	mu     sync.Mutex
	byAddr map[netip.Addr]debt
}

// debt is how many wrong credentials an address has sent that are not forgotten, as of a time.
type debt struct {
	count float64
	at    time.Time
}

func newFailures(now func() time.Time) *failures {
	return &failures{now: now, held: make(chan struct{}, maxHeld), byAddr: make(map[netip.Addr]debt)}
}

// allow counts a wrong credential and returns when it may be answered; false when too many wait for that already.
func (f *failures) allow(ctx context.Context, remote string) bool {
	if f.count(remote) <= patience {
		return true
	}
	select {
	case f.held <- struct{}{}:
		defer func() { <-f.held }()
	default:
		return false
	}
	timer := time.NewTimer(holdBack)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return true
}

func (f *failures) count(remote string) float64 {
	addr := addrOf(remote)
	now := f.now()
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, known := f.byAddr[addr]; !known && len(f.byAddr) >= maxTracked {
		clear(f.byAddr)
	}
	d := f.byAddr[addr]
	d.count = max(0, d.count-float64(now.Sub(d.at))/float64(forgiveness)) + 1
	d.at = now
	f.byAddr[addr] = d
	return d.count
}

// addrOf is the address by which failures are counted: for IPv6 the /64 that one customer has.
func addrOf(remote string) netip.Addr {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	addr := ap.Addr().Unmap()
	if addr.Is6() {
		if prefix, err := addr.Prefix(64); err == nil {
			return prefix.Addr()
		}
	}
	return addr
}
