package ca

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"sekisho/internal/auditlog"
	"sekisho/internal/pkix"
)

// ImportCertificatesRequest brings certificates that CAs of ours signed and the ledger does not have.
type ImportCertificatesRequest struct {
	Actor        string
	CA           string // name or id of the CA that signed all of them; empty: any of ours
	ZoneID       string // where they are found then
	Certificates []byte // a PEM bundle of up to MaxImportCertificates, or one certificate in DER
}

// MaxImportCertificates is how many certificates one import takes. It is one transaction that no change of a certificate's
// state passes, so it is as long as others can be made to wait.
const MaxImportCertificates = maxAtOnce

// ImportCertificates stores certificates, all or none, so that they can be searched, held and revoked. The answer says of
// each what was done. It returns a [*RequestError] that names the certificate, or ErrConflict when a serial number has
// another certificate in the ledger.
func (a *Authority) ImportCertificates(ctx context.Context, req ImportCertificatesRequest) ([]Imported, error) {
	var only *authorityCA
	if req.CA != "" {
		var err error
		if only, err = a.named(req.CA); err != nil {
			return nil, err
		}
	}
	certs, err := readBundle(req.Certificates)
	if err != nil {
		return nil, err
	}
	if len(certs) > MaxImportCertificates {
		return nil, invalid("certificates", "%d certificates; one import takes at most %d: bring them in parts", len(certs), MaxImportCertificates)
	}
	rows := make([]Certificate, len(certs))
	entries := make([]auditlog.Entry, len(certs))
	for i, cert := range certs {
		if rows[i], err = a.checkForeign(cert, only, req.ZoneID); err != nil {
			return nil, invalid("certificates", "certificate %d of %d, %s: %v", i+1, len(certs), pkix.DNString(cert.RawSubject), err)
		}
		entries[i] = a.entry(req.Actor, "certificate.import", rows[i].ID, map[string]string{
			"profile": rows[i].Profile, "serial": rows[i].Serial.String(), "subject": pkix.DNString(cert.RawSubject), "zone": req.ZoneID,
			"ca": rows[i].CAID, "fingerprint": rows[i].Fingerprint.String(),
		})
	}
	defer a.lockStates(Transition{Block: true})()
	done, err := a.cfg.Ledger.ImportCertificates(context.WithoutCancel(ctx), rows, entries)
	switch {
	case errors.Is(err, ErrSerialTaken):
		return nil, fmt.Errorf("%w: nothing was imported: %w", err, ErrConflict)
	case err != nil: // it may be stored all the same, and some of them revoked for their key
		for _, row := range a.rowsNow(ctx, rows) {
			a.tellRevoked(row)
			a.tellSameKey(ctx, row)
		}
		return nil, fmt.Errorf("record the certificates: %w", err)
	}
	for _, d := range done {
		a.tellRevoked(d.Row)
		for _, row := range d.SameKey {
			a.tell(row)
		}
	}
	a.cfg.Logger.InfoContext(ctx, "certificates imported", "actor", req.Actor, "count", len(done), "zone", req.ZoneID)
	return done, nil
}

func (a *Authority) tellRevoked(row Certificate) {
	if row.Status == Revoked {
		a.tell(row)
	}
}

// readBundle reads PEM or one certificate in DER.
func readBundle(data []byte) ([]*x509.Certificate, error) {
	if len(data) > 0 && data[0] == 0x30 {
		cert, err := readCertificate("certificates", data)
		return []*x509.Certificate{cert}, err
	}
	certs, err := pkix.ParseCertificates(data)
	if err != nil {
		return nil, invalid("certificates", "%v", err)
	}
	return certs, nil
}

// checkForeign finds the CA of ours that signed a certificate, and makes its row.
func (a *Authority) checkForeign(cert *x509.Certificate, only *authorityCA, zone string) (Certificate, error) {
	issuer := a.cas.Load().issuerOf(cert)
	switch {
	case cert.IsCA:
		return Certificate{}, errors.New("it is a CA; those are imported with sekisho ca import")
	case issuer == nil:
		return Certificate{}, fmt.Errorf("no CA here has signed it (its issuer is %s); import the CA first: sekisho ca import", pkix.DNString(cert.RawIssuer))
	case only != nil && issuer.key != only.key:
		return Certificate{}, fmt.Errorf("the CA %s has signed it, not %s", issuer.record.Name, only.record.Name)
	}
	return a.importedRow(cert, issuer.cert, importPlace{ca: issuer.record.ID, zone: zone, shard: a.shardOf(cert, issuer)}), nil
}

// importPlace is where an imported certificate belongs.
type importPlace struct {
	ca, zone string
	shard    int
}

// importedRow is the row of a certificate that was signed elsewhere.
func (a *Authority) importedRow(cert, issuer *x509.Certificate, p importPlace) Certificate {
	return Certificate{
		ID: newUUID(), ZoneID: p.zone, CAID: p.ca, Profile: foreignProfile(cert), IssuerKey: pkix.KeyIDOf(issuer),
		Serial: pkix.SerialOf(cert.SerialNumber), Shard: p.shard, DER: cert.Raw, KeyHash: pkix.KeyIDOf(cert), CommonName: pkix.CommonName(cert.RawSubject),
		NotBefore: cert.NotBefore, NotAfter: cert.NotAfter, IssuedOn: cert.NotBefore, ValidDays: int((cert.NotAfter.Sub(cert.NotBefore) + day - 1) / day),
		Status: Active, Fingerprint: pkix.FingerprintOf(cert.Raw),
	}
}

// foreignProfile is what a certificate is for. One that may be for clients is a client's, for that is what hosts take it as.
func foreignProfile(cert *x509.Certificate) string {
	has := func(u x509.ExtKeyUsage) bool { return slices.Contains(cert.ExtKeyUsage, u) }
	switch {
	case len(cert.ExtKeyUsage)+len(cert.UnknownExtKeyUsage) == 0, has(x509.ExtKeyUsageClientAuth), has(x509.ExtKeyUsageAny):
		return ProfileClient
	case has(x509.ExtKeyUsageServerAuth):
		return ProfileServer
	case has(x509.ExtKeyUsageOCSPSigning):
		return profileOCSP
	}
	return ProfileUnknown
}

// shardOf is the CRL shard that a certificate names, where that is one of ours; else 0.
func (a *Authority) shardOf(cert *x509.Certificate, issuer *authorityCA) int {
	prefix := a.cfg.PKIURL + "/crl/" + issuer.record.ID + "/"
	for _, url := range cert.CRLDistributionPoints {
		name, ours := strings.CutPrefix(url, prefix)
		number, isCRL := strings.CutSuffix(name, ".crl")
		if shard, err := strconv.Atoi(number); ours && isCRL && err == nil && shard >= 0 && shard < issuer.record.Shards {
			return shard
		}
	}
	return 0
}
