package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"sekisho/internal/store"
)

// target says which checkpoint a command talks to: a server by URL, the server that runs on a data directory, or, when
// none does, the data directory itself.
type target struct {
	server string
	token  string
	data   string
	ca     string
	zone   string

	passphrase string // file
}

func (t *target) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&t.server, "server", "", "admin API of a running server, `URL` (default: the one that runs on --data, else the store itself)")
	f.StringVar(&t.token, "token", "", "`FILE` that holds the API token (default: $SEKISHO_TOKEN, else DATA/token)")
	f.StringVar(&t.ca, "server-ca", "", "PEM `FILE` of the CA of an https --server")
	f.StringVar(&t.data, "data", "sekisho-data", "`DIR` of the server's state")
	f.StringVar(&t.passphrase, "passphrase-file", "", "`FILE` with the passphrase of the keys, when no server runs and they have one")
}

func (t *target) zoneFlag(c *cobra.Command) {
	c.Flags().StringVar(&t.zone, "zone", "", "`NAME` of the zone (default: the only one)")
}

// api is a client of the admin API. close ends what was opened for it.
type api struct {
	base   string // .../client/v4
	token  string
	client *http.Client
	close  func() error

	patient func() // has every answer waited for longer: an import of half a million entries takes minutes
}

// open finds the target. Errors say which place was tried.
func (t *target) open(ctx context.Context, e env) (*api, error) {
	token, err := t.readToken(e)
	if err != nil {
		return nil, err
	}
	if t.server != "" {
		return t.remote(strings.TrimSuffix(t.server, "/"), token)
	}
	if store.Held(t.data) {
		data, err := os.ReadFile(filepath.Join(t.data, "server.json"))
		if err != nil {
			return nil, &hinted{err: fmt.Errorf("a server holds %s but does not say where it listens: %w", t.data, err), hint: "is it still starting? otherwise give --server URL"}
		}
		var ready readyFile
		if err := json.Unmarshal(data, &ready); err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(t.data, "server.json"), err)
		}
		if ready.Admin == "" {
			return nil, &hinted{err: fmt.Errorf("the server on %s has no admin API", t.data), hint: "set listen.admin in its configuration"}
		}
		if token == "" {
			token = ready.Token
		}
		return t.remote(ready.Admin, token)
	}
	return t.local(ctx, e)
}

func (t *target) readToken(e env) (string, error) {
	if t.token != "" {
		data, err := os.ReadFile(t.token)
		if err != nil {
			return "", fmt.Errorf("--token: %w", err)
		}
		return strings.TrimSpace(string(data)), nil
	}
	return e.getenv("SEKISHO_TOKEN"), nil
}

func (t *target) remote(server, token string) (*api, error) {
	if u, err := url.Parse(server); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, &usageError{err: fmt.Errorf("--server %q is no URL", server), hint: "write it like http://127.0.0.1:8440"}
	}
	transport := &http.Transport{ForceAttemptHTTP2: true, ResponseHeaderTimeout: 30 * time.Second}
	if t.ca != "" {
		data, err := os.ReadFile(t.ca)
		if err != nil {
			return nil, fmt.Errorf("--server-ca: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("--server-ca %s holds no certificate", t.ca)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	client := &http.Client{Transport: transport, Timeout: time.Minute}
	return &api{
		base: server + "/client/v4", token: token, client: client,
		close:   func() error { transport.CloseIdleConnections(); return nil },
		patient: func() { client.Timeout, transport.ResponseHeaderTimeout = 15*time.Minute, 15*time.Minute },
	}, nil
}

// local opens the store and serves the same API to this process alone, so that a command does the same thing in the
// same way whether a server runs or not.
func (t *target) local(ctx context.Context, e env) (*api, error) {
	if _, err := os.Stat(filepath.Join(t.data, "sekisho.db")); err != nil {
		return nil, &hinted{err: fmt.Errorf("there is no checkpoint in %s", t.data), hint: "make one with \"sekisho ca init\" or \"sekisho serve --dev\", or name another with --data DIR or --server URL"}
	}
	logger := slog.New(slog.NewTextHandler(e.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	cfg, err := offlineConfig(t.data, t.passphrase)
	if err != nil {
		return nil, err
	}
	h, err := openHouse(ctx, cfg, logger)
	if err != nil {
		return nil, err
	}
	a, err := t.serveLocal(ctx, h)
	if err != nil {
		return nil, errors.Join(err, h.close())
	}
	return a, nil
}

func (t *target) serveLocal(ctx context.Context, h *house) (*api, error) {
	pki := Config{}.withDefaults().PKI
	var err error
	var ok bool
	if pki.URL, ok, err = h.store.Meta(ctx, "pki_url"); err != nil {
		return nil, err
	}
	if !ok {
		return nil, &hinted{err: fmt.Errorf("%s has no CA yet", h.dir), hint: "make one: sekisho ca init --data " + h.dir}
	}
	if err := h.recallLists(ctx, &pki); err != nil {
		return nil, err
	}
	if err := h.openCA(ctx, pki, nil); err != nil {
		return nil, err
	}
	if err := h.ensureZone(ctx); err != nil {
		return nil, err
	}
	handler, err := h.apiHandler()
	if err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	serving, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	server := plainServer{listener: ln, handler: handler, logger: h.logger, drain: time.Second, write: writeTimeout}
	go func() { done <- server.run(serving) }()
	a, err := t.remote("http://"+ln.Addr().String(), h.token)
	if err != nil {
		cancel()
		return nil, errors.Join(err, <-done)
	}
	a.close = func() error {
		a.client.CloseIdleConnections()
		cancel()
		return errors.Join(<-done, h.close())
	}
	return a, nil
}

// envelope is the answer of every call.
type envelope struct {
	Success bool `json:"success"`
	Errors  []struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
		Source  *struct {
			Pointer string `json:"pointer"`
		} `json:"source"`
		Chain []struct {
			Message string `json:"message"`
		} `json:"error_chain"`
	} `json:"errors"`
	Messages []struct {
		Message string `json:"message"`
	} `json:"messages"`
	Result     json.RawMessage `json:"result"`
	ResultInfo struct {
		TotalCount int `json:"total_count"`
		TotalPages int `json:"total_pages"`
		PerPage    int `json:"per_page"`
		Page       int `json:"page"`
	} `json:"result_info"`
}

// call performs one call; body and result may be nil. An error of the server is returned in its own words.
func (a *api) call(ctx context.Context, method, path string, body, result any) error {
	env, err := a.send(ctx, method, path, body)
	if err != nil || result == nil {
		return err
	}
	if err := json.Unmarshal(env.Result, result); err != nil {
		return fmt.Errorf("answer of %s %s: %w", method, path, err)
	}
	return nil
}

func (a *api) send(ctx context.Context, method, path string, body any) (envelope, error) {
	var env envelope
	var reader io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return env, err
		}
		reader = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, a.base+path, reader)
	if err != nil {
		return env, err
	}
	req.Header.Set("Authorization", "Bearer "+a.token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := a.client.Do(req)
	if err != nil {
		return env, unreachable(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return env, fmt.Errorf("read the answer of the admin API: %w", err)
	}
	if err := json.Unmarshal(data, &env); err != nil {
		return env, fmt.Errorf("the admin API answered %s with something that is not its JSON; is %s the admin address?", resp.Status, a.base)
	}
	if !env.Success {
		return env, a.refusal(path, resp.StatusCode, env)
	}
	return env, nil
}

// unreachable adds what to look at when the server did not answer at all.
func unreachable(err error) error {
	wrapped := fmt.Errorf("call the admin API: %w", err)
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return &hinted{err: wrapped, hint: "nothing listens there: is the server running, and is that its admin address?"}
	case errors.As(err, &unknown):
		return &hinted{err: wrapped, hint: "name the CA of the server's certificate with --server-ca FILE"}
	}
	return wrapped
}

// Codes of the API that the command line tells apart.
const (
	codeConflict = 1005 // not from this state: the request was well-formed, the answer is no
	codeHeaders  = 6003 // a credential of the wrong form
)

func (a *api) refusal(path string, status int, env envelope) error {
	var texts []string
	for _, e := range env.Errors {
		text := e.Message
		if e.Source != nil && e.Source.Pointer != "" {
			text += " (" + e.Source.Pointer + ")"
		}
		for _, c := range e.Chain {
			text += ": " + c.Message
		}
		texts = append(texts, text)
	}
	err := errors.New(strings.Join(texts, "; "))
	code := 0
	if len(env.Errors) > 0 {
		code = env.Errors[0].Code
	}
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden || code == codeHeaders:
		return &hinted{err: err, hint: "give the token with --token FILE or SEKISHO_TOKEN; the first one is in DATA/token"}
	case code == codeConflict && !strings.Contains(path, "/client_certificates"):
		return err
	case code == codeConflict:
		return &hinted{err: err, hint: "cert show tells the state; cert reactivate undoes a hold and nothing else, cert revoke makes it final"}
	case status == http.StatusBadRequest:
		return &usageError{err: err}
	}
	return err
}

// with opens the target for one function.
func (t *target) with(ctx context.Context, e env, do func(context.Context, *api) error) error {
	a, err := t.open(ctx, e)
	if err != nil {
		return err
	}
	return errors.Join(do(ctx, a), a.close())
}
