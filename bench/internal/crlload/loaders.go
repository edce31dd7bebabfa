package crlload

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"sekisho/bench/internal/pki"
	"sekisho/internal/pkix"
	"sekisho/internal/revocation/crl"
)

// sekisho is the index of the product.
type sekisho struct {
	list    *crl.List
	serials []pkix.Serial
}

func loadSekisho(c Config) (index, error) {
	ca, err := pki.LoadCA(c.CA)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(c.List)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	list, err := crl.Load(f, crl.Options{Issuer: ca, Dir: c.Dir})
	if err != nil {
		return nil, err
	}
	return &sekisho{list: list}, nil
}

func (s *sekisho) batch(serials [][16]byte) {
	s.serials = s.serials[:0]
	for i := range serials {
		s.serials = append(s.serials, pkix.SerialFromBytes(serials[i][:]))
	}
}

func (s *sekisho) lookup() (found int) {
	for _, serial := range s.serials {
		if e, ok := s.list.Lookup(nil, serial); ok && !e.At.IsZero() {
			found++
		}
	}
	return found
}

// stdlib is what a Go program without a library would write: the parsed list, and where each serial number is in it.
type stdlib struct {
	list    *x509.RevocationList
	at      map[string]int32
	serials []string
}

func loadStdlib(c Config) (index, error) {
	ca, err := pki.LoadCA(c.CA)
	if err != nil {
		return nil, err
	}
	der, err := os.ReadFile(c.List)
	if err != nil {
		return nil, err
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, err
	}
	if err := list.CheckSignatureFrom(ca); err != nil {
		return nil, err
	}
	s := &stdlib{list: list, at: make(map[string]int32, len(list.RevokedCertificateEntries))}
	for i := range list.RevokedCertificateEntries {
		s.at[string(list.RevokedCertificateEntries[i].SerialNumber.Bytes())] = int32(i)
	}
	return s, nil
}

func (s *stdlib) batch(serials [][16]byte) {
	s.serials = s.serials[:0]
	for i := range serials {
		s.serials = append(s.serials, string(serials[i][:]))
	}
}

func (s *stdlib) lookup() (found int) {
	for _, serial := range s.serials {
		if i, ok := s.at[serial]; ok && !s.list.RevokedCertificateEntries[i].RevocationTime.IsZero() {
			found++
		}
	}
	return found
}

// runOpenSSL lets the command parse and verify the list. Its wall time has the start of the program in it. Peak is right
// because this process is small: the kernel takes over into it what the process was before it became openssl.
func runOpenSSL(ctx context.Context, c Config) (Result, error) {
	cmd := exec.CommandContext(ctx, c.OpenSSL, "crl", "-inform", "DER", "-in", c.List, "-noout", "-CAfile", c.CA)
	start := time.Now()
	out, err := cmd.CombinedOutput()
	wall := time.Since(start)
	switch {
	case err != nil:
		return Result{}, fmt.Errorf("%s: %w: %s", OpenSSL, err, bytes.TrimSpace(out))
	case !bytes.Contains(out, []byte("verify OK")): // it exits with 0 whatever the signature
		return Result{}, fmt.Errorf("%s: it does not say that the signature is right: %s", OpenSSL, bytes.TrimSpace(out))
	}
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return Result{}, errors.New("the system does not say what a process used")
	}
	cpu := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return Result{Wall: millis(wall), CPU: millis(cpu), Peak: usage.Maxrss << 10}, nil
}
