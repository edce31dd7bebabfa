package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// endMargin is how near to a certificate's end nobody is asked: the judges do not look at the same moment.
const endMargin = 3 * time.Second

// judge asks everybody about a certificate.
func (w *walker) judge(c *walked) {
	w.t.Helper()
	if until := time.Until(c.cert().NotAfter); until > 0 && until < endMargin {
		waitUntil(w.t, "a certificate ends", c.ended)
	}
	ended := c.ended()
	w.askAPI(c)
	full, delta := w.settle(c)
	judges := []func() string{
		func() string { return w.opensslVerify(c, ended, "-CRLfile", full.file) },
		w.askOpensslOCSP(c),
		func() string { return w.askOcsptool(c) },
		func() string { return w.askKept(c, ended) },
		func() string { return w.askEdge(c, ended) },
	}
	if old := w.oldList(c, delta); old != nil {
		judges = append(judges, func() string {
			return w.opensslVerify(c, ended, "-extended_crl", "-use_deltas", "-CRLfile", old.file, "-CRLfile", delta.file)
		})
	}
	said := make([]string, len(judges))
	var wait sync.WaitGroup
	for i, judge := range judges {
		wait.Go(func() { said[i] = judge() })
	}
	wait.Wait()
	if wrong := strings.TrimSpace(strings.Join(said, "\n")); wrong != "" {
		if c.ended() != ended { // the machine stood still for the whole of endMargin
			w.judge(c)
			return
		}
		w.fail(c, "the model says: reason %q, ended %v, lost %v. Newest list %s, delta %s\n%s", c.reason, ended, c.lost, full.file, delta.file, wrong)
	}
	w.judgements += len(judges) + 1
	if c.conn == nil && c.active() && !c.ended() && w.chance.IntN(3) == 0 {
		w.keep(c)
	}
}

// askAPI demands the state of the model.
func (w *walker) askAPI(c *walked) {
	w.t.Helper()
	want := http.StatusOK
	if c.lost {
		want = http.StatusNotFound
	}
	env := w.call(c, want, "GET", w.path(c), nil)
	if c.lost {
		return
	}
	var row ledgerRow
	if err := json.Unmarshal(env.Result, &row); err != nil {
		w.fail(c, "GET: %v", err)
	}
	w.compareRow(c, row)
}

func (w *walker) compareRow(c *walked, row ledgerRow) {
	w.t.Helper()
	status := "active"
	if !c.active() {
		status = "revoked"
	}
	if row.Status != status || row.Reason != c.reason || row.Serial != c.serial {
		w.fail(c, "the API says %s %q of serial %s; want %s %q", row.Status, row.Reason, row.Serial, status, c.reason)
	}
}

// command runs a program for half a minute at most; it may fail. What it says of errors comes after the rest: openssl
// writes much of the rest at once, and an error would end up within a line.
func command(name string, args ...string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	return fmt.Sprintf("$ %s %s\n%s%s(%v)", name, strings.Join(args, " "), &out, &errs, err)
}

// opensslVerify judges a certificate by the lists in more. Without -extended_crl, OpenSSL 3.0 takes a delta that is newer
// than the complete list for a complete list.
func (w *walker) opensslVerify(c *walked, ended bool, more ...string) string {
	args := append([]string{"verify", "-CAfile", w.roots(), "-untrusted", w.between(), "-crl_check"}, more...)
	said := command("openssl", append(args, c.file)...)
	ok := strings.Contains(said, c.file+": OK")
	switch {
	case ended && !ok && (strings.Contains(said, "certificate has expired") || !c.active() && strings.Contains(said, "certificate revoked")):
		return ""
	case !ended && c.active() && ok:
		return ""
	case !ended && !c.active() && !ok && strings.Contains(said, "certificate revoked"):
		return ""
	}
	return said
}

// ocspStatus is what a responder has to say.
func (c *walked) ocspStatus() string {
	switch {
	case c.lost:
		return "unknown"
	case c.active():
		return "good"
	}
	return "revoked"
}

// askOpensslOCSP asks with one of the hashes, with a nonce or without.
func (w *walker) askOpensslOCSP(c *walked) func() string {
	hash := []string{"-sha1", "-sha256"}[w.chance.IntN(2)]
	nonce := []string{"-nonce", "-no_nonce"}[w.chance.IntN(2)]
	return func() string {
		said := command("openssl", "ocsp", hash, nonce, "-issuer", c.issuer, "-cert", c.file, "-url", w.p.ready.PKI+"/ocsp",
			"-CAfile", w.roots(), "-verify_other", w.between())
		right := strings.Contains(said, "Response verify OK") && strings.Contains(said, c.file+": "+c.ocspStatus()) && !strings.Contains(said, "WARNING")
		switch c.reason {
		case "", "unspecified": // unspecified goes without saying
		case "privilegeWithdrawn", "aACompromise": // OpenSSL 3.0 has no names for 9 and 10
			right = right && strings.Contains(said, "Reason: (UNKNOWN)")
		default:
			right = right && strings.Contains(said, "Reason: "+c.reason)
		}
		if right {
			return ""
		}
		return said
	}
}

func (w *walker) askOcsptool(c *walked) string {
	said := command("ocsptool", "--ask="+w.p.ready.PKI+"/ocsp", "--load-issuer", c.issuer, "--load-trust", w.everyCA(), "--load-cert", c.file)
	if strings.Contains(said, "Verifying OCSP Response: Success") && strings.Contains(said, "Certificate Status: "+c.ocspStatus()) {
		return ""
	}
	return said
}

// keptConn is a connection that stays open over the steps.
type keptConn struct {
	conn   *tls.Conn
	reader *bufio.Reader
}

// drop closes the connection that is kept.
func (c *walked) drop() {
	if c.conn != nil {
		c.conn.conn.Close()
		c.conn = nil
	}
}

// keep opens a connection for later. It makes a request at once: the server's patience with a silent one that is new is short.
func (w *walker) keep(c *walked) {
	w.t.Helper()
	config := w.p.tlsConfig(c.pair)
	config.NextProtos = []string{"http/1.1"}
	conn, err := tls.Dial("tcp", w.p.edgeAddress(), config)
	if err != nil {
		w.fail(c, "a connection to keep: %v", err)
	}
	c.conn = &keptConn{conn, bufio.NewReader(conn)}
	if wrong := w.askKept(c, false); wrong != "" && !c.ended() {
		w.fail(c, "%s", wrong)
	}
}

// request makes one on the connection.
func (k *keptConn) request() (int, error) {
	_ = k.conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(k.conn, "GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(k.reader, nil)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// askKept makes a request on the connection that is kept: answered as long as the certificate is good without a break. A
// revocation has ended the connection; the end of the certificate has, or the request is refused.
func (w *walker) askKept(c *walked, ended bool) string {
	if c.conn == nil {
		return ""
	}
	status, err := c.conn.request()
	good := c.active() && !ended
	if !good || err != nil {
		c.drop()
	}
	switch {
	case good && (err != nil || status != http.StatusOK):
		return fmt.Sprintf("edge: a connection that is kept: %d %v", status, err)
	case !good && err == nil && !(c.active() && status == http.StatusForbidden):
		return fmt.Sprintf("edge: a connection that is kept still gets %d", status)
	}
	return ""
}

// askEdge makes a new connection, which resumes the session of an earlier one when there is a ticket.
func (w *walker) askEdge(c *walked, ended bool) string {
	config := w.p.tlsConfig(c.pair)
	config.ClientSessionCache = c.sessions
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}, Timeout: 30 * time.Second}
	defer client.CloseIdleConnections()
	resp, err := client.Get(strings.Replace(w.p.ready.Edge, "127.0.0.1", "localhost", 1) + "/hello")
	if err != nil {
		return fmt.Sprintf("edge: %v", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	text := strings.TrimSpace(string(body))
	good := c.active() && !ended
	switch {
	case good && resp.StatusCode == http.StatusOK,
		!good && resp.StatusCode == http.StatusForbidden && (ended || strings.Contains(text, "revoked")):
		return ""
	}
	return fmt.Sprintf("edge: %d %s %v (resumed: %v)", resp.StatusCode, text, err, resp.TLS.DidResume)
}

// judgeAll asks the cheap judges about everything: the API for every row, openssl for every certificate that has not
// ended by the newest list, by an old one with the delta and by the list of all shards, and the edge.
func (w *walker) judgeAll() {
	w.t.Helper()
	rows := make(map[string]ledgerRow)
	for _, row := range everyCertificate(w.t, w.p) {
		rows[row.ID] = row
	}
	byList := make(map[string][]*walked)
	for _, c := range w.certs {
		row, known := rows[c.id]
		if known == c.lost {
			w.fail(c, "the API lists it: %v", known)
		}
		if known {
			w.compareRow(c, row)
		}
		if !c.shortLived {
			byList[c.list] = append(byList[c.list], c)
		}
	}
	for _, ca := range w.cas {
		for shard := range walkShards {
			if all := byList[ca.list(shard)]; len(all) > 0 {
				w.judgeShard(all)
			}
		}
	}
	for range min(len(w.certs), 100) {
		c := w.certs[w.chance.IntN(len(w.certs))]
		if c.shortLived {
			continue
		}
		if wrong := w.askEdge(c, false); wrong != "" {
			w.fail(c, "%s", wrong)
		}
	}
}

// judgeShard has openssl judge all certificates of a shard at once.
func (w *walker) judgeShard(all []*walked) {
	w.t.Helper()
	var full, delta, whole *walkList
	for _, c := range all {
		full, delta = w.settle(c)
		whole = w.settleWhole(c)
	}
	ways := [][]string{{"-CRLfile", full.file}, {"-CRLfile", whole.file}}
	if old := w.oldList(all[0], delta); old != nil {
		ways = append(ways, []string{"-extended_crl", "-use_deltas", "-CRLfile", old.file, "-CRLfile", delta.file})
	}
	for _, way := range ways {
		args := append([]string{"verify", "-CAfile", w.roots(), "-untrusted", w.between(), "-crl_check"}, way...)
		for _, c := range all {
			args = append(args, c.file)
		}
		said := command("openssl", args...)
		for _, c := range all {
			if ok := strings.Contains(said, c.file+": OK"); ok != c.active() {
				w.fail(c, "openssl verify %v accepts %s: %v; the model says %q\n%s", way, filepath.Base(c.file), ok, c.reason, said)
			}
		}
		w.judgements += len(all)
	}
}

// settleWhole waits until the list of all shards says what the model does; it is made once a second.
func (w *walker) settleWhole(c *walked) *walkList {
	w.t.Helper()
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		l := w.newest(c.whole())
		if l.says(c) {
			return l
		}
		if time.Since(begin) > listPatience {
			w.fail(c, "the list of all shards %s does not say %q after %v", l.file, c.reason, listPatience)
		}
	}
}
