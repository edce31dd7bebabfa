package principal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"time"
)

// tokens is a Tokens in memory; the durable one has its own tests.
type tokens map[[32]byte]Token

var errBroken = errors.New("disk on fire")

func (t tokens) TokenByHash(_ context.Context, hash [32]byte) (Token, error) {
	if t == nil {
		return Token{}, errBroken
	}
	if v, ok := t[hash]; ok {
		return v, nil
	}
	return Token{}, fmt.Errorf("look-up: %w", ErrUnauthenticated)
}

func TestInvariant12Authenticate(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	known := tokens{}
	add := func(email string, role Role, expires time.Time) string {
		secret, token, err := NewToken("t", email, Edit)
		if err != nil {
			t.Fatal(err)
		}
		token.Role, token.ExpiresOn = role, expires
		known[token.Hash] = token
		return secret
	}
	edit := add("Me@Example.com", Edit, time.Time{})
	read := add("", Read, now.Add(time.Second))
	expired := add("me@example.com", Edit, now)
	odd := add("me@example.com", "owner", time.Time{})
	unknown := strings.Repeat("a", 40)

	for _, test := range []struct {
		name string
		c    Credentials
		role Role
		want error
	}{
		{"bearer", Credentials{Bearer: edit}, Edit, nil},
		{"e-mail and key", Credentials{Email: "me@EXAMPLE.com", Key: edit}, Edit, nil},
		{"bearer beside another e-mail", Credentials{Bearer: edit, Email: "you@example.com"}, Edit, nil},
		{"not yet expired", Credentials{Bearer: read}, Read, nil},
		{"nothing", Credentials{}, "", ErrUnauthenticated},
		{"unknown", Credentials{Bearer: unknown}, "", ErrUnauthenticated},
		{"expired", Credentials{Bearer: expired}, "", ErrUnauthenticated},
		{"role nobody knows", Credentials{Bearer: odd}, "", ErrUnauthenticated},
		{"another's e-mail", Credentials{Email: "you@example.com", Key: edit}, "", ErrUnauthenticated},
		{"a token without e-mail as a key", Credentials{Email: "me@example.com", Key: read}, "", ErrUnauthenticated},
		{"unknown bearer beside a good key", Credentials{Bearer: unknown, Email: "me@example.com", Key: edit}, "", ErrUnauthenticated},
		{"key alone", Credentials{Key: edit}, "", ErrMalformed},
		{"e-mail alone", Credentials{Email: "me@example.com"}, "", ErrMalformed},
		{"long e-mail", Credentials{Email: strings.Repeat("a", 300), Key: edit}, "", ErrMalformed},
		{"short", Credentials{Bearer: "abc"}, "", ErrMalformed},
		{"long", Credentials{Bearer: strings.Repeat("a", 4096)}, "", ErrMalformed},
		{"blank inside", Credentials{Bearer: edit[:20] + " " + edit[20:]}, "", ErrMalformed},
		{"quoted", Credentials{Bearer: `"` + edit + `"`}, "", ErrMalformed},
		{"case changed", Credentials{Bearer: strings.ToUpper(edit)}, "", ErrUnauthenticated},
		{"one letter more", Credentials{Bearer: edit + "a"}, "", ErrUnauthenticated},
	} {
		caller, err := NewAuthenticator(known).Authenticate(t.Context(), test.c, now)
		if !errors.Is(err, test.want) || caller.Role != test.role || errors.Is(err, ErrMalformed) != errors.Is(test.want, ErrMalformed) {
			t.Errorf("%s: role %q, %v; want %q, %v", test.name, caller.Role, err, test.role, test.want)
		}
		if err != nil && (caller != Caller{} || !errors.Is(err, ErrUnauthenticated)) {
			t.Errorf("%s: %+v with %v", test.name, caller, err)
		}
	}
	for what, a := range map[string]*Authenticator{"zero": {}, "nil": nil} {
		if _, err := a.Authenticate(t.Context(), Credentials{Bearer: edit}, now); !errors.Is(err, ErrUnauthenticated) {
			t.Errorf("%s authenticator: %v", what, err)
		}
	}
	_, err := NewAuthenticator(tokens(nil)).Authenticate(t.Context(), Credentials{Bearer: edit}, now)
	if !errors.Is(err, errBroken) || errors.Is(err, ErrUnauthenticated) {
		t.Errorf("a broken store: %v; it is no bad credential", err)
	}
}

func TestInvariant12Roles(t *testing.T) {
	for _, test := range []struct {
		have, want Role
		ok         bool
	}{
		{Edit, Edit, true},
		{Edit, Read, true},
		{Read, Read, true},
		{Read, Edit, false},
		{"", Read, false},
		{"", Edit, false},
		{"", "", false},
		{Edit, "", false},
		{"owner", Read, false},
	} {
		if err := (Caller{Role: test.have}).Require(test.want); (err == nil) != test.ok || !test.ok && !errors.Is(err, ErrForbidden) {
			t.Errorf("%q for %q: %v", test.have, test.want, err)
		}
	}
}

func TestNewToken(t *testing.T) {
	form := regexp.MustCompile(`^[0-9A-Za-z]{40}$`)
	seen, letters := map[string]bool{}, map[rune]int{}
	for range 2000 {
		secret, token, err := NewToken("ci", "me@example.com", Read)
		if err != nil {
			t.Fatal(err)
		}
		if !form.MatchString(secret) || seen[secret] || token.Hash != HashSecret(secret) || !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(token.ID) {
			t.Fatalf("secret %q of token %+v", secret, token)
		}
		seen[secret] = true
		for _, c := range secret {
			letters[c]++
		}
	}
	for c, n := range letters { // 1290 each, standard deviation 36
		if n < 1000 || n > 1600 {
			t.Errorf("%q came %d times, want about 1290", c, n)
		}
	}
	for what, err := range map[string]error{
		"no name":      errOf(NewToken("", "", Read)),
		"no role":      errOf(NewToken("a", "", "")),
		"unknown role": errOf(NewToken("a", "", "owner")),
		"no e-mail":    errOf(NewToken("a", "me", Read)),
	} {
		if err == nil {
			t.Errorf("%s was taken", what)
		}
	}
}

func errOf(_ string, _ Token, err error) error { return err }

func TestInvariant11CredentialsNeverPrint(t *testing.T) {
	secret, _, err := NewToken("ci", "me@example.com", Edit)
	if err != nil {
		t.Fatal(err)
	}
	c := Credentials{Bearer: secret, Email: "me@example.com", Key: secret}
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q"} {
		fmt.Fprintf(&out, verb, c)
		fmt.Fprintf(&out, verb, &c)
		fmt.Fprintf(&out, verb, []any{c})
	}
	slog.New(slog.NewJSONHandler(&out, nil)).Info("c", "c", c)
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(b)
	if strings.Contains(out.String(), secret) || strings.Contains(out.String(), fmt.Sprintf("%x", secret)) {
		t.Errorf("the secret shows: %s", out.String())
	}
}
