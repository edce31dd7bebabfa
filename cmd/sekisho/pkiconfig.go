package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"sekisho/internal/ca"
)

// Bounds of the lives of CRLs and OCSP answers. Shorter ones would be signed all the time; with longer ones a client that
// cannot reach us believes too long what it has.
const (
	minCRLLifetime  = 10 * time.Minute
	maxCRLLifetime  = 30 * 24 * time.Hour
	minOCSPLifetime = time.Minute
	maxOCSPLifetime = 7 * 24 * time.Hour
)

func (c PKIConfig) withDefaults() PKIConfig {
	c.KeyType = cmp.Or(c.KeyType, "ecdsa-p256")
	c.Shards = cmp.Or(c.Shards, ca.DefaultShards)
	c.CRLLifetime = cmp.Or(c.CRLLifetime, 24*time.Hour)
	c.CRLOverlap = cmp.Or(c.CRLOverlap, c.CRLLifetime/2)
	c.OCSPLifetime = cmp.Or(c.OCSPLifetime, time.Hour)
	return c
}

// checkLists finds mistakes in what is said of CRLs and OCSP answers.
func (c PKIConfig) checkLists() error {
	var errs []error
	if c.Shards < 0 || c.Shards > ca.MaxShards {
		errs = append(errs, fmt.Errorf("pki.shards %d: it is 1 to %d", c.Shards, ca.MaxShards))
	}
	c = c.withDefaults()
	for _, b := range []struct {
		key             string
		value, from, to time.Duration
	}{
		{"crl_lifetime", c.CRLLifetime, minCRLLifetime, maxCRLLifetime},
		{"ocsp_lifetime", c.OCSPLifetime, minOCSPLifetime, maxOCSPLifetime},
	} {
		if b.value < b.from || b.value > b.to {
			errs = append(errs, fmt.Errorf("pki.%s %v: it is %v to %v", b.key, b.value, b.from, b.to))
		}
	}
	if c.CRLOverlap < time.Minute || c.CRLOverlap > c.CRLLifetime-time.Minute {
		errs = append(errs, fmt.Errorf("pki.crl_overlap %v: it is 1m to a minute less than crl_lifetime, %v", c.CRLOverlap, c.CRLLifetime))
	}
	return errors.Join(errs...)
}

// listsMeta is where the store has rememberedLists.
const listsMeta = "pki_lists"

// rememberedLists are the keys about lists with which the server ran last, for commands that sign lists without one.
type rememberedLists struct {
	Publish      string        `json:"publish"` // absolute
	CRLLifetime  time.Duration `json:"crl_lifetime"`
	CRLOverlap   time.Duration `json:"crl_overlap"`
	OCSPLifetime time.Duration `json:"ocsp_lifetime"`
}

// rememberLists stores them.
func (h *house) rememberLists(ctx context.Context, pki PKIConfig) error {
	r := rememberedLists{Publish: pki.Publish, CRLLifetime: pki.CRLLifetime, CRLOverlap: pki.CRLOverlap, OCSPLifetime: pki.OCSPLifetime}
	if r.Publish != "" && r.Publish != "off" {
		var err error
		if r.Publish, err = filepath.Abs(r.Publish); err != nil {
			return fmt.Errorf("pki.publish: %w", err)
		}
	}
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return h.store.SetMeta(ctx, listsMeta, string(text))
}

// recallLists sets in pki what rememberLists stored.
func (h *house) recallLists(ctx context.Context, pki *PKIConfig) error {
	text, ok, err := h.store.Meta(ctx, listsMeta)
	if err != nil || !ok {
		return err
	}
	var r rememberedLists
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return fmt.Errorf("%s of the store: %w", listsMeta, err)
	}
	pki.Publish, pki.CRLLifetime, pki.CRLOverlap, pki.OCSPLifetime = r.Publish, r.CRLLifetime, r.CRLOverlap, r.OCSPLifetime
	return nil
}

// publishDir is the directory that CRLs are written to; "" is none.
func (c PKIConfig) publishDir(data string) string {
	switch c.Publish {
	case "off":
		return ""
	case "":
		return filepath.Join(data, "crl")
	}
	return c.Publish
}

// authorityConfig is how the CA of a house is opened.
func (h *house) authorityConfig(pki PKIConfig, onChange func(ca.Certificate)) ca.Config {
	return ca.Config{
		Ledger: h.store, Keys: h.keys, PKIURL: pki.URL, OnChange: onChange, Logger: h.logger, PublishDir: pki.publishDir(h.dir),
		CRLLifetime: pki.CRLLifetime, CRLOverlap: pki.CRLOverlap, OCSPLifetime: pki.OCSPLifetime,
	}
}
