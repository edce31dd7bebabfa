package main

import (
	"fmt"
	"strings"
)

// pem is the CA's certificate and what is sent along with it. The cross certificates of a root come before it: openssl
// takes the first issuer that fits, and behind a root there is no way on to another one.
func (c caView) pem() string {
	var extra string
	for _, x := range c.Extra {
		extra += x.Certificate
	}
	if c.Role == "root" {
		return extra + c.Certificate
	}
	return c.Certificate + extra
}

// text is the CA for people.
func (c caView) text() string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "  %-8s %s\n", name, fmt.Sprintf(format, args...))
	}
	fmt.Fprintln(&b, c.Name)
	line("role", "%s, %s", c.Role, c.standing())
	line("subject", "%s", c.Subject)
	line("serial", "%s", c.Serial)
	line("key", "%s", c.KeyType)
	line("until", "%s, %d days", c.ExpiresOn, c.DaysLeft)
	line("sha256", "%s", c.Fingerprint)
	if c.CRL != "" {
		line("crl", "%s", c.CRL)
		line("shards", "%d", c.Shards)
	} else {
		line("crl", "published by whoever has the key")
	}
	if c.SignerEnds != "" {
		line("ocsp", "signer made elsewhere, until %s", c.SignerEnds)
	}
	line("issued", "%d not revoked, %d revoked", c.Active, c.Revoked)
	for _, extra := range c.Extra {
		line("extra", "%s, by %s: %s", extra.Subject, extra.Issuer, extra.URL)
	}
	return b.String()
}

// standing says how the CA stands in a few words.
func (c caView) standing() string {
	words := []string{c.State}
	if c.Imported {
		words = append(words, "imported")
	}
	if c.Role == "issuing" {
		words = append(words, map[bool]string{true: "trusted", false: "not trusted"}[c.Trusted])
	}
	return strings.Join(words, ", ")
}
