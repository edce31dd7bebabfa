package ca

import (
	"bytes"
	"context"
	"time"

	"sekisho/internal/pkix"
)

const (
	// maxOCSPRenewals bounds what one round signs anew, and so the answers that it holds on to. With a round every
	// 1/240 of a life, half a life renews more answers than the cache has room for.
	maxOCSPRenewals = 4096
	// ocspRounds is how many rounds there are in the life of an answer.
	ocspRounds = 240
)

// run signs answers anew before clients have to wait for it, and delegates before they end, until ctx ends. A round
// that takes long is followed by a pause of three times its own length: at most a quarter of a core is used.
func (r *ocspResponder) run(ctx context.Context) {
	r.running.Store(true)
	defer r.running.Store(false)
	pause := r.a.cfg.OCSPLifetime / ocspRounds
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		start := time.Now()
		r.signers.renewDue(ctx)
		r.renew(ctx)
		timer.Reset(max(pause, 3*time.Since(start)))
	}
}

// renew is one round. What cannot be signed is left: it is still valid, and the next round or the next question tries again.
func (r *ocspResponder) renew(ctx context.Context) {
	now := r.a.cfg.Now()
	failed := 0
	var last error
	for _, due := range r.cache.sweep(now, now.Add(-r.a.cfg.OCSPLifetime), maxOCSPRenewals) {
		if ctx.Err() != nil {
			return
		}
		if err := r.renewOne(ctx, due); err != nil {
			failed, last = failed+1, err
		}
	}
	if failed > 0 && ctx.Err() == nil {
		r.a.cfg.Logger.ErrorContext(ctx, "OCSP answers not renewed", "answers", failed, "error", last)
	}
}

func (r *ocspResponder) renewOne(ctx context.Context, due ocspDue) error {
	// The answer that is there now, if any, and the epoch before the ledger is asked.
	current, epoch := r.cache.answer(due.id, due.old.raw, r.a.cfg.Now())
	if current != due.old {
		return nil // its certificate changed, or somebody was faster
	}
	parsed, err := pkix.ParseOCSPRequest(pkix.OCSPRequest{Certs: []pkix.OCSPCertID{{Raw: due.old.raw}}}.Marshal())
	if err != nil {
		return err
	}
	issuer := r.issuerOf(parsed.Certs)
	if issuer == nil {
		return nil // the CA has left
	}
	answer, err := r.live(ctx, issuer, parsed)
	if err != nil || !answer.Cacheable {
		return err
	}
	fresh := &cachedAnswer{raw: bytes.Clone(due.old.raw), answer: answer}
	fresh.asked.Store(due.old.asked.Load())
	r.cache.keep(due.id, epoch, fresh)
	r.a.counters.ocspRenewed.Add(1)
	return nil
}
