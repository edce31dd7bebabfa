// Package test drives the built program with heavy clients that the product itself must not depend on: Cloudflare's
// own SDKs. It is a module of its own so that the product's go.mod stays small enough to audit.
//
//	cd test && go test ./...
//
// It refuses to reach into the product: everything goes through the command line, the listeners and the files that
// `sekisho serve --dev` writes, so what passes here works for a user.
package test
