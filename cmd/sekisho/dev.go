package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sekisho/internal/auditlog"
	"sekisho/internal/ca"
	"sekisho/internal/pkix"
	"sekisho/internal/site"
)

// readyFile is what --ready-file holds and what DATA/server.json tells the command line while the server runs.
// A key is absent when there is no such listener.
type readyFile struct {
	Edge          string `json:"edge"`
	Admin         string `json:"admin,omitempty"`
	PKI           string `json:"pki,omitempty"`
	Metrics       string `json:"metrics,omitempty"`
	AccountID     string `json:"account_id,omitempty"`
	ZoneID        string `json:"zone_id,omitempty"`
	Token         string `json:"token,omitempty"`
	Email         string `json:"email,omitempty"`
	CA            string `json:"ca,omitempty"`
	ClientCert    string `json:"client_cert,omitempty"`
	ClientKey     string `json:"client_key,omitempty"`
	CertificateID string `json:"client_certificate_id,omitempty"`
}

// buildDev collects what the ready file tells and, with --dev, makes the client certificate and the file to source.
func (s *server) buildDev(ctx context.Context) error {
	s.ready = readyFile{Edge: s.urls["edge"], Admin: s.urls["admin"], PKI: s.urls["pki"], Metrics: s.urls["metrics"]}
	if s.house == nil {
		return nil
	}
	s.ready.AccountID, s.ready.Token, s.ready.Email = s.house.accountID, s.house.token, s.house.email
	if zones := s.sites.Load().Hosts(); len(zones) > 0 {
		s.ready.ZoneID = zones[0].Zone.ID
	}
	if err := s.house.writeRoots(); err != nil {
		return err
	}
	s.ready.CA = filepath.Join(s.cfg.Data, "ca.pem")
	if !s.flags.dev {
		return nil
	}
	if err := s.devClient(ctx); err != nil {
		return err
	}
	return writePrivate(filepath.Join(s.cfg.Data, "env"), s.devEnv())
}

// devClient makes the ready client certificate, or keeps the one of an earlier start while it is good.
func (s *server) devClient(ctx context.Context) error {
	certFile, keyFile := filepath.Join(s.cfg.Data, "client.pem"), filepath.Join(s.cfg.Data, "client-key.pem")
	s.ready.ClientCert, s.ready.ClientKey = certFile, keyFile
	if id, ok := s.devClientKept(ctx, certFile, keyFile); ok {
		s.ready.CertificateID = id
		return nil
	}
	row, key, err := s.house.authority.IssueWithKey(ctx, ca.IssueRequest{
		ZoneID: s.ready.ZoneID, Profile: "client", Subject: "CN=dev client,O=sekisho", ValidDays: 365, Actor: "sekisho serve --dev",
	}, "ecdsa-p256")
	if err != nil {
		return fmt.Errorf("issue the client certificate: %w", err)
	}
	pem, err := pkix.EncodePrivateKey(key)
	if err != nil {
		return err
	}
	s.ready.CertificateID = row.ID
	return errors.Join(writePrivate(keyFile, pem), writePrivate(certFile, pkix.EncodeCertificate(row.DER)))
}

func (s *server) devClientKept(ctx context.Context, certFile, keyFile string) (id string, ok bool) {
	data, err := os.ReadFile(certFile)
	if err != nil {
		return "", false
	}
	if _, err := os.Stat(keyFile); err != nil {
		return "", false
	}
	cert, err := pkix.ParseCertificate(data)
	if err != nil {
		return "", false
	}
	issuer := s.house.authority.IssuerOf(cert) // maybe one that was rotated since
	if issuer == nil {
		return "", false
	}
	row, err := s.house.store.CertificateByID(ctx, pkix.CertIDOf(cert, issuer))
	if err != nil || row.Status != ca.Active || time.Until(row.NotAfter) < 24*time.Hour {
		return "", false
	}
	return row.ID, true
}

// seedAssociation ties localhost to the managed CA at the first start with --dev; from then on the API rules.
func (s *server) seedAssociation(ctx context.Context, zone site.Zone) error {
	const key = "dev_association"
	if _, done, err := s.house.store.Meta(ctx, key); err != nil || done {
		return err
	}
	entry := auditlog.Entry{At: time.Now().UTC(), Actor: "sekisho serve --dev", Action: "hostname_associations.replace", Object: zone.Name, Outcome: "done"}
	if err := s.house.store.ReplaceAssociations(ctx, zone.ID, "", []string{"localhost"}, entry); err != nil {
		return err
	}
	return s.house.store.SetMeta(ctx, key, "done")
}

// devEnv is a shell file with the variables that the articles' command lines use.
func (s *server) devEnv() []byte {
	var b strings.Builder
	absolute := s.ready.CA
	if abs, err := filepath.Abs(absolute); err == nil {
		absolute = abs
	}
	for _, v := range [][2]string{
		{"EMAIL", s.ready.Email},
		{"API_KEY", s.ready.Token},
		{"APIKEY", s.ready.Token},
		{"ACCOUNT_ID", s.ready.AccountID},
		{"ZONE_ID", s.ready.ZoneID},
		{"ZONEID", s.ready.ZoneID},
		{"CURL_CA_BUNDLE", absolute},
	} {
		fmt.Fprintf(&b, "export %s='%s'\n", v[0], strings.ReplaceAll(v[1], "'", `'\''`))
	}
	return []byte(b.String())
}

// announce tells the world that everything listens: the ready file, DATA/server.json, and with --dev the lines to paste.
func (s *server) announce() error {
	data, err := json.Marshal(s.ready) //nolint:gosec // the file is the owner's alone; ClientKey is a path
	if err != nil {
		return err
	}
	data = append(data, '\n')
	if s.house != nil {
		path := filepath.Join(s.cfg.Data, "server.json")
		if err := writePrivate(path, data); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
		s.closers = append(s.closers, func() error { return os.Remove(path) })
	}
	if s.flags.dev {
		s.printDev()
	}
	if s.flags.readyFile == "" {
		return nil
	}
	if err := writePrivate(s.flags.readyFile, data); err != nil {
		return fmt.Errorf("write the ready file: %w", err)
	}
	return nil
}

func (s *server) printDev() {
	r := s.ready
	client := fmt.Sprintf("--cert %s --key %s", r.ClientCert, r.ClientKey)
	fmt.Fprintf(s.env.stdout, `sekisho is up. Paste these into another terminal:

  # no certificate: refused
  curl --cacert %[1]s %[2]s/hello
  # with the certificate: through
  curl --cacert %[1]s %[3]s %[2]s/hello
  # revoke it: refused from now on, open connections included
  curl -X DELETE -H "Authorization: Bearer $(cat %[4]s)" %[5]s/client/v4/zones/%[6]s/client_certificates/%[7]s
  curl --cacert %[1]s %[3]s %[2]s/hello
  # a hold can be undone
  curl -X PATCH -H "Authorization: Bearer $(cat %[4]s)" -d '{"reactivate":true}' %[5]s/client/v4/zones/%[6]s/client_certificates/%[7]s

Variables for the API: . %[8]s    Stop with Ctrl-C.
`, r.CA, r.Edge, client, filepath.Join(s.cfg.Data, "token"), r.Admin, r.ZoneID, r.CertificateID, filepath.Join(s.cfg.Data, "env"))
}

// newID returns 32 lower hex digits, the form of account and zone ids.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// readPassphrase reads the passphrase of the key files; no path, no passphrase.
func readPassphrase(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("keys.passphrase_file: %w", err)
	}
	data = []byte(strings.TrimRight(string(data), "\r\n"))
	if len(data) == 0 {
		return nil, fmt.Errorf("keys.passphrase_file %s is empty", path)
	}
	return data, nil
}
