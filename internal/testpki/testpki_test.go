package testpki_test

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"testing"
	"time"

	"sekisho/internal/pkix"
	"sekisho/internal/testpki"
)

func TestMutualTLS(t *testing.T) {
	for _, keyType := range []pkix.KeyType{pkix.ECDSAP256, pkix.Ed25519, pkix.RSA2048, pkix.MLDSA65} {
		t.Run(string(keyType), func(t *testing.T) {
			root := testpki.NewCA(t, testpki.KeyType(keyType))
			sub := root.Intermediate("testpki issuing", testpki.KeyType(keyType))
			server := sub.Server("localhost", "127.0.0.1")
			client := sub.Client("Iwa Te", testpki.KeyType(keyType))
			a, b := net.Pipe()
			defer a.Close()
			defer b.Close()
			srv := tls.Server(a, &tls.Config{
				Certificates: []tls.Certificate{server.TLS()}, ClientCAs: root.Pool(), ClientAuth: tls.RequireAndVerifyClientCert,
			})
			done := make(chan error, 1)
			go func() { done <- srv.Handshake() }()
			cli := tls.Client(b, &tls.Config{ServerName: "localhost", RootCAs: root.Pool(), Certificates: []tls.Certificate{client.TLS()}})
			if err := cli.Handshake(); err != nil {
				t.Fatal(err)
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if got := pkix.CommonName(srv.ConnectionState().PeerCertificates[0].RawSubject); got != "Iwa Te" {
				t.Errorf("common name %q", got)
			}
		})
	}
}

func TestOptions(t *testing.T) {
	ca := testpki.NewCA(t, testpki.NoKeyUsage(), testpki.Name("plain root"))
	if ca.Cert.KeyUsage != 0 || ca.Cert.Subject.CommonName != "plain root" {
		t.Errorf("CA: key usage %v, name %q", ca.Cert.KeyUsage, ca.Cert.Subject.CommonName)
	}
	v1 := ca.Client("old", testpki.V1())
	if v1.Cert.Version != 1 || len(v1.Cert.Extensions) != 0 {
		t.Errorf("version %d with %d extensions", v1.Cert.Version, len(v1.Cert.Extensions))
	}
	if err := v1.Cert.CheckSignatureFrom(ca.Cert); err != nil {
		t.Errorf("v1 signature: %v", err)
	}
	past := time.Now().Add(-time.Hour)
	if cert := ca.Client("expired", testpki.NotAfter(past)).Cert; cert.NotAfter.After(past) || !cert.NotBefore.Before(cert.NotAfter) {
		t.Errorf("expired: %v to %v", cert.NotBefore, cert.NotAfter)
	}
	future := time.Now().Add(time.Hour * 100)
	if cert := ca.Client("early", testpki.NotBefore(future)).Cert; cert.NotBefore.Before(future.Truncate(time.Second)) || !cert.NotBefore.Before(cert.NotAfter) {
		t.Errorf("early: %v to %v", cert.NotBefore, cert.NotAfter)
	}
	if cert := ca.Client("any", testpki.NoEKU()).Cert; len(cert.ExtKeyUsage) != 0 {
		t.Errorf("EKU %v", cert.ExtKeyUsage)
	}
	if cert := ca.Client("wrong", testpki.WrongEKU()).Cert; cert.ExtKeyUsage[0] != x509.ExtKeyUsageServerAuth {
		t.Errorf("EKU %v", cert.ExtKeyUsage)
	}
	if cert := ca.ServerWith([]string{"localhost"}, testpki.NoSAN()).Cert; len(cert.DNSNames) != 0 {
		t.Errorf("SAN %v", cert.DNSNames)
	}
}
