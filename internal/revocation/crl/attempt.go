package crl

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"sekisho/internal/outbound"
	"sekisho/internal/pkix"
	"sekisho/internal/trust"
)

// attempt brings a slot up to date as far as something is due, and shows what it came to. copyOnly: without the network.
func (k *Keeper) attempt(ctx context.Context, s *slot, p Place, copyOnly bool) {
	k.prepare(ctx)
	if !isURL(p.Address) {
		if k.readFile(ctx, s, p) {
			k.publish(ctx, s)
		}
		return
	}
	o := k.options(p)
	k.readCopy(ctx, &s.base, p.Address, o, p.meant)
	now := k.cfg.Now()
	if !copyOnly && s.base.due(now, p.Refresh) {
		l, err := k.fetch(ctx, &s.base, p, o)
		if l != nil && err == nil {
			err = cmp.Or(p.meant(l), p.sameKey(l, s.base.list, now))
		}
		k.settle(&s.base, l, err, p.Refresh)
	}
	k.followDelta(ctx, s, p, copyOnly)
	k.publish(ctx, s)
	k.keepCopy(ctx, &s.base, p.Address)
	if urls := freshest(s); len(urls) > 0 {
		k.keepCopy(ctx, &s.delta, urls[0])
	}
}

// meant reports why a list is not what a certificate can mean by its distribution point (RFC 5280, Section 6.3.3 (b)): a
// complete list of the certificate's issuer, or an indirect one.
func (p Place) meant(l *List) error {
	switch {
	case p.Origin != outbound.FromCertificate:
	case l.IsDelta():
		return ErrDelta
	case !l.Indirect() && !pkix.SameName(l.IssuerName(), p.Issuers[0].RawSubject):
		return fmt.Errorf("%w: it is by %.200s, not by %.200s", ErrIssuer, pkix.DNString(l.IssuerName()), pkix.DNString(p.Issuers[0].RawSubject))
	}
	return nil
}

// sameKey reports why a list by another key of the CA does not take the place of the one in force yet: a CA that has two
// keys may have a list for each, and whoever sits between us and the distribution point of one may serve the other's.
// Once the list by the issuer's own key has run out, another key's may be all there is.
func (p Place) sameKey(l, old *List, now time.Time) error {
	own := p.Issuers[0].RawSubjectPublicKeyInfo
	if p.Origin == outbound.FromCertificate && old != nil && !old.NextUpdate().IsZero() && old.Fresh(now, 0) &&
		bytes.Equal(old.Issuer().RawSubjectPublicKeyInfo, own) && !bytes.Equal(l.Issuer().RawSubjectPublicKeyInfo, own) {
		return fmt.Errorf("%w: it is by another key than that of the certificate's issuer", ErrSuccessor)
	}
	return nil
}

// settle is source.settle with counting.
func (k *Keeper) settle(src *source, l *List, err error, refresh time.Duration) (changed bool) {
	changed = src.settle(l, err, k.cfg.Now(), refresh)
	if l != nil && src.list != l {
		l.discard()
	}
	if l != nil && refusal(src.err) {
		src.etag, src.lastModified = "", "" // "not modified" would hide why, and keep it out when it may come
	}
	switch {
	case changed:
		k.counts.fetched.Add(1)
	case src.err == nil || errors.Is(src.err, ErrExpired):
		k.counts.unchanged.Add(1)
	case err != nil && l == nil && !final(err):
		k.counts.failed.Add(1)
	default:
		k.counts.refused.Add(1)
	}
	return changed
}

// refusal reports whether a list came and was not taken.
func refusal(err error) bool {
	for _, reason := range []error{ErrIssuer, ErrKeyUsage, ErrAlgorithm, ErrSignature, ErrScope, ErrBase, ErrOlder, ErrSuccessor, ErrDelta} {
		if errors.Is(err, reason) {
			return true
		}
	}
	return false
}

// options are those of the lists of a place.
func (k *Keeper) options(p Place) Options {
	o := Options{Issuers: p.Issuers, Allows: p.Allows, MaxBytes: k.cfg.MaxBytes, Dir: k.cfg.Dir}
	if p.Origin == outbound.FromCertificate && isURL(p.Address) {
		o.MaxBytes = k.cfg.MaxBytesFromCertificate
	}
	return o
}

// takes reports whether a policy takes an algorithm; without a policy the default one decides.
func takes(allows func(string) bool, algorithm string) bool {
	if allows == nil {
		return trust.Policy{}.Allows(algorithm)
	}
	return allows(algorithm)
}

// room waits for its turn. free must be called if err is nil.
func room(ctx context.Context, c chan struct{}) (free func(), err error) {
	select {
	case c <- struct{}{}:
		return func() { <-c }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// checked runs what takes a processor or two.
func (k *Keeper) checked(ctx context.Context, load func() (*List, error)) (*List, error) {
	free, err := room(ctx, k.checking)
	if err != nil {
		return nil, err
	}
	defer free()
	return load()
}

// operatorTimeout is for a fetch from a URL that the operator wrote, of which the list may be large. Others have the
// client's own deadline.
const operatorTimeout = 2 * time.Minute

// fetch asks a URL. Without a list and an error the one in force is current still.
func (k *Keeper) fetch(ctx context.Context, src *source, p Place, o Options) (*List, error) {
	if k.cfg.Client == nil {
		return nil, errors.New("lists are not fetched here")
	}
	if p.Origin == outbound.FromOperator { // the client bounds the others, for each host: here one that hangs would keep all waiting
		free, err := room(ctx, k.fetching)
		if err != nil {
			return nil, err
		}
		defer free()
	}
	req := outbound.Request{
		URL: p.Address, Accept: "application/pkix-crl", MaxBytes: o.limit(), Origin: p.Origin, // RFC 2585, Section 4.2
	}
	if p.Origin == outbound.FromOperator {
		req.Timeout = operatorTimeout
	}
	if src.list != nil && src.list.Readable() {
		req.ETag, req.LastModified = src.etag, src.lastModified
	}
	resp, err := k.cfg.Client.Do(ctx, req)
	if err != nil {
		return nil, tooLarge(err)
	}
	if resp.NotModified && src.list != nil {
		return nil, nil
	}
	defer resp.Body.Close()
	b, err := readBody(resp.Body, o.Dir, o.limit())
	if err != nil {
		return nil, tooLarge(err)
	}
	l, err := k.checked(ctx, func() (*List, error) { return o.load(b) })
	if err == nil {
		src.etag, src.lastModified = resp.ETag, resp.LastModified
	}
	return l, err
}

// tooLarge names a size limit as Load does.
func tooLarge(err error) error {
	if errors.Is(err, outbound.ErrTooLarge) {
		return fmt.Errorf("%w: %w", ErrTooLarge, err)
	}
	return err
}

// maxFreshest bounds the URLs of deltas that are tried.
const maxFreshest = 4

// freshest are the URLs of deltas to the list of a slot. Only lists from URLs are followed: who has configured a file
// alone does not expect a request.
func freshest(s *slot) []string {
	if s.base.list == nil || s.base.list.IsDelta() {
		return nil
	}
	urls := s.base.list.Freshest()
	return urls[:min(len(urls), maxFreshest)]
}

// followDelta fetches the delta that the list names (RFC 5280, Section 5.2.6). Its URL is somebody else's word, whoever
// wrote that of the list.
func (k *Keeper) followDelta(ctx context.Context, s *slot, p Place, copyOnly bool) {
	urls := freshest(s)
	if len(urls) == 0 {
		s.delta = source{}
		return
	}
	p.Origin = outbound.FromCertificate
	o := k.options(p)
	o.Issuer = s.base.list.Issuer()
	if s.delta.list != nil {
		if _, err := s.base.list.WithDelta(s.delta.list); err != nil && !errors.Is(err, ErrOlder) {
			s.delta = source{} // of the list before, whose key or scope was another one
		}
	}
	k.readCopy(ctx, &s.delta, urls[0], o, func(l *List) error {
		_, err := s.base.list.WithDelta(l)
		if errors.Is(err, ErrOlder) {
			err = nil
		}
		return err
	})
	now := k.cfg.Now()
	if copyOnly || !s.delta.due(now, p.Refresh) {
		return
	}
	var l *List
	var err error
	for i, url := range urls {
		p.Address = url
		if i > 0 {
			s.delta.etag, s.delta.lastModified = "", "" // of another URL
		}
		if l, err = k.fetch(ctx, &s.delta, p, o); err == nil {
			break
		}
	}
	if err == nil && l != nil {
		if _, err = s.base.list.WithDelta(l); errors.Is(err, ErrOlder) {
			err = nil // the list is newer, and this will serve no longer
		}
	}
	k.settle(&s.delta, l, err, p.Refresh)
	if errors.Is(err, ErrBase) { // there must be a newer list
		soon := now.Add(leastRefresh)
		if s.base.next.After(soon) {
			s.base.next = soon
		}
	}
}

// fileState tells whether a file is the one that was read.
type fileState struct {
	info os.FileInfo
}

// settled is how long ago a file must have been written for its time to tell it from the next one: the kernel's clock
// for it is coarse.
const settled = 50 * time.Millisecond

func (f *fileState) changed(now os.FileInfo) bool {
	return f.info == nil || !os.SameFile(f.info, now) || f.info.Size() != now.Size() || !f.info.ModTime().Equal(now.ModTime())
}

// maxFileBackoff is how long a file that cannot be used is left alone while it stays as it is.
const maxFileBackoff = time.Minute

// readFile reads a file that changed, or could not be used before, and reports whether there is something to show.
func (k *Keeper) readFile(ctx context.Context, s *slot, p Place) bool {
	src := &s.base
	src.local = true
	info, err := os.Stat(p.Address)
	switch now := k.cfg.Now(); {
	case err == nil && !src.file.changed(info) && (src.err == nil || final(src.err) || now.Before(src.next)) &&
		(src.list == nil || src.list.Readable()):
		return false
	case err != nil && src.err != nil && src.file.info == nil && now.Before(src.next):
		return false
	}
	var l *List
	src.file.info = nil
	if err == nil {
		l, err = k.loadFile(ctx, p, info)
		src.file.info = info
		if time.Since(info.ModTime()) < settled {
			src.file.info = nil // written just now: look again
		}
	}
	before := src.err
	changed := k.settle(src, l, err, p.Refresh)
	if src.err != nil {
		src.next = src.attempt.Add(min(time.Second<<min(src.fails-1, 10), maxFileBackoff))
	} else {
		src.next = src.attempt.Add(k.beat)
	}
	return changed || before != nil || src.err != nil || l != nil
}

// final reports whether the same list would meet with the same error again.
func final(err error) bool {
	if errors.Is(err, ErrSuccessor) { // the list before it runs out some day
		return false
	}
	return refusal(err) || errors.Is(err, ErrExpired) || errors.Is(err, ErrTooLarge) ||
		errors.Is(err, pkix.ErrCRLMalformed) || errors.Is(err, pkix.ErrCRLCritical)
}

// loadFile reads a file whose state was info a moment ago.
func (k *Keeper) loadFile(ctx context.Context, p Place, info os.FileInfo) (*List, error) {
	if !info.Mode().IsRegular() { // to open a pipe would wait for who writes to it
		return nil, fmt.Errorf("%s is no regular file", p.Address)
	}
	f, err := os.Open(p.Address)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	l, err := k.checked(ctx, func() (*List, error) { return Load(f, k.options(p)) })
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.Address, err)
	}
	l.discard() // the operator's file is there for the next start
	return l, nil
}
