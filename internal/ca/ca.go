// Package ca is our own certificate authority: a root, an issuing CA below it, and everything the two signed. It issues,
// revokes, holds and reactivates certificates, publishes CRLs and answers OCSP.
//
// A certificate is checked, linted, signed, recorded in the ledger and only then returned. A revocation is one
// transaction of the ledger; everything that follows (the edge's index, cached OCSP answers, the CRL) happens through
// [Config.OnChange] before the caller has its answer, or in the CRL a fraction of a second after it.
//
//	Revoke ─▶ Ledger.Apply (durable, CRL number N) ─▶ OCSP answer dropped ─▶ noted for CRL N ─▶ OnChange ─▶ answer
//	                                                                            Run ─▶ CRL ≥ N signed
//
// It refuses: requests whose signature, key, names or extensions are not as they should be ([RequestError] says which),
// a life beyond the issuer's, a key that was compromised once, and whatever a lint of RFC 5280 finds. It never says
// "good" of a serial number that it did not issue. It keeps no private key of a certificate it made one for.
//
//	authority, err := ca.Open(ctx, ca.Config{Ledger: store, Keys: keys, PKIURL: "http://127.0.0.1:8441"})
//	if !authority.Ready() {
//		err = authority.Init(ctx, "local:me", ca.InitRequest{})
//	}
//	row, err := authority.Issue(ctx, ca.IssueRequest{ZoneID: zone, Profile: ca.ProfileClient, CSR: pem, ValidDays: 90})
//	row, err = authority.Revoke(ctx, ca.RevokeRequest{ID: row.ID, ZoneID: zone, Reason: pkix.Superseded})
//	go authority.Run(ctx) // publishes CRLs
package ca
