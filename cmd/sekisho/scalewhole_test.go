package main

import (
	"bytes"
	"context"
	"encoding/asn1"
	"encoding/json"
	"net/http"
	"strings"
	"time"
)

// whole measures how long after a revocation on a quiet server the list of all shards tells of it.
func (s *scale) whole(p *process) {
	s.t.Helper()
	var took sample
	for range 5 {
		c := s.take(1)[0]
		entry, err := asn1.Marshal(c.serial)
		if err != nil {
			s.t.Fatal(err)
		}
		time.Sleep(time.Second) // the pause after the list before
		s.published(p)
		begin := time.Now()
		if _, err := revokeOne(p, http.DefaultClient, c.id); err != nil {
			s.t.Fatalf("%v\n%s", err, p.log)
		}
		for {
			list, err := getCRL(s.t.Context(), p, s.ca+".crl")
			if err != nil {
				s.t.Fatalf("%v\n%s", err, p.log)
			}
			if bytes.Contains(list, entry) {
				break
			}
			if time.Since(begin) > time.Minute {
				s.t.Fatalf("the list of all shards does not tell of a revocation after a minute\n%s", p.log)
			}
			time.Sleep(5 * time.Millisecond)
		}
		took = append(took, time.Since(begin))
		s.count++
	}
	s.t.Logf("the list of all shards tells of a revocation after %v; %v", took, p.usage())
}

// stream revokes ten certificates a second, first while nobody asks for the list of all shards and then while somebody
// asks every second, and reports what the server uses.
func (s *scale) stream(p *process, n int) {
	s.t.Helper()
	for _, asked := range []bool{false, true} {
		ctx, cancel := context.WithCancel(s.t.Context())
		ended := make(chan int, 1)
		go func() {
			fetched := 0
			for ctx.Err() == nil && asked {
				if list, err := getCRL(ctx, p, s.ca+".crl"); err == nil && len(list) > 0 {
					fetched++
				}
				select {
				case <-ctx.Done():
				case <-time.After(time.Second):
				}
			}
			ended <- fetched
		}()
		before, begin := p.usage(), time.Now()
		lists := strings.Count(p.log.String(), "CRL of all shards published")
		var answers sample
		for i, c := range s.take(n) {
			time.Sleep(time.Until(begin.Add(time.Duration(i) * 100 * time.Millisecond)))
			took, err := revokeOne(p, http.DefaultClient, c.id)
			if err != nil {
				s.t.Fatalf("%v\n%s", err, p.log)
			}
			answers = append(answers, took)
		}
		took, after := time.Since(begin), p.usage()
		cancel()
		s.count += n
		s.t.Logf("stream of %d revocations in %v, list of all shards fetched %d times and made %d times: %.2f of a core; answers %v; %v", n,
			took.Round(10*time.Millisecond), <-ended, strings.Count(p.log.String(), "CRL of all shards published")-lists,
			(after.cpu-before.cpu).Seconds()/took.Seconds(), answers, after)
	}
}

// disk reports what lies in the data directory while the server runs.
func (s *scale) disk(p *process) {
	s.t.Helper()
	size := sizes(s.t, s.dir)
	for _, kind := range []string{"database", "WAL", "journal", "shards", "deltas", "whole lists"} {
		s.t.Logf("on disk: %-11s %8.1f MB", kind, float64(size[kind])/1e6)
	}
	used := p.usage()
	s.t.Logf("and then %v", used)
	if size["WAL"] > 128<<20 {
		s.t.Errorf("the WAL has %d bytes", size["WAL"])
	}
	if used.anon > 640<<10 && !raceEnabled {
		s.t.Errorf("%d MiB of memory, want at most 640", used.anon>>10)
	}
}

// verify has the program compare everything that there is.
func (s *scale) verify() {
	s.t.Helper()
	begin := time.Now()
	stdout, stderr, code := sekisho(s.t, "", "store", "verify", "--json", "--data", s.dir)
	var report struct {
		Records      uint64 `json:"records"`
		Certificates int    `json:"certificates"`
		Entries      int    `json:"crl_entries"`
	}
	if err := json.Unmarshal([]byte(stdout), &report); err != nil || code != 0 {
		s.t.Fatalf("store verify: exit %d, %v\n%s%s", code, err, stdout, stderr)
	}
	if report.Certificates != s.count {
		s.t.Errorf("store verify compared %d certificates with the journal, want %d", report.Certificates, s.count)
	}
	s.t.Logf("store verify: %d records, %d certificates, %d entries of lists in %v", report.Records, report.Certificates, report.Entries, time.Since(begin).Round(time.Millisecond))
}
