package main

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sekisho/internal/pkix"
)

// binary is the program under test, built once by TestMain.
var binary string

func TestMain(m *testing.M) {
	if control := os.Getenv(controlVariable); control != "" {
		os.Exit(serveUnderControl(control, os.Args[1:]))
	}
	dir, err := os.MkdirTemp("", "sekisho-test")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binary = filepath.Join(dir, "sekisho")
	args := []string{"build", "-o", binary}
	if raceEnabled {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, ".")...).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the program: %v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// long reports whether the long scenarios run: SEKISHO_LONG=1, or `make test-long`.
func long() bool { return os.Getenv("SEKISHO_LONG") != "" }

// process is a running `sekisho serve`.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	dir   string // data directory
	ready readyFile
	log   *logBuffer
	done  chan error
}

// logBuffer collects standard error.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// startDev starts `serve --dev` on free ports with the data directory dir.
func startDev(t *testing.T, dir string, more ...string) *process {
	t.Helper()
	return start(t, dir, append([]string{"--dev", "--data", dir, "--edge", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--pki", "127.0.0.1:0", "--metrics", "127.0.0.1:0"}, more...)...)
}

// start starts `serve` and waits until it is ready. The process is killed at the end of the test if it still runs.
func start(t *testing.T, dir string, args ...string) *process {
	t.Helper()
	return startProgram(t, dir, binary, nil, args...)
}

// startProgram is start for another program that takes the same arguments, with more environment.
func startProgram(t *testing.T, dir, program string, environment []string, args ...string) *process {
	t.Helper()
	p := &process{t: t, dir: dir, log: &logBuffer{}, done: make(chan error, 1)}
	readyPath := filepath.Join(t.TempDir(), "ready.json")
	p.cmd = exec.Command(program, append([]string{"serve", "--ready-file", readyPath}, args...)...)
	p.cmd.Env = append(os.Environ(), environment...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.done <- p.cmd.Wait() }()
	t.Cleanup(func() { p.kill() })
	deadline := time.After(120 * time.Second)
	for {
		if data, err := os.ReadFile(readyPath); err == nil {
			if err := json.Unmarshal(data, &p.ready); err != nil {
				t.Fatalf("ready file: %v\n%s", err, data)
			}
			return p
		}
		select {
		case err := <-p.done:
			p.done <- err
			t.Fatalf("serve ended before it was ready: %v\n%s", err, p.log)
		case <-deadline:
			t.Fatalf("serve is not ready after two minutes\n%s", p.log)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// kill is kill -9; it is safe to call twice.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	err := <-p.done
	p.done <- err
}

// stop is SIGTERM; the process must exit 0 in time.
func (p *process) stop() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	select {
	case err := <-p.done:
		p.done <- err
		if err != nil {
			p.t.Fatalf("serve ended with %v\n%s", err, p.log)
		}
	case <-time.After(30 * time.Second):
		p.t.Fatalf("serve did not end within 30 s of SIGTERM\n%s", p.log)
	}
}

// api calls the admin API and returns the status and the answer.
func (p *process) api(method, path string, body any) (int, envelope) {
	p.t.Helper()
	status, env, err := p.tryAPI(http.DefaultClient, method, path, body)
	if err != nil {
		p.t.Fatalf("%s %s: %v\n%s", method, path, err, p.log)
	}
	return status, env
}

func (p *process) tryAPI(client *http.Client, method, path string, body any) (int, envelope, error) {
	var env envelope
	var reader io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return 0, env, err
		}
		reader = bytes.NewReader(data)
	}
	req, err := http.NewRequest(method, p.ready.Admin+"/client/v4"+path, reader)
	if err != nil {
		return 0, env, err
	}
	req.Header.Set("Authorization", "Bearer "+p.ready.Token)
	resp, err := client.Do(req)
	if err != nil {
		return 0, env, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, env, err
	}
	return resp.StatusCode, env, json.Unmarshal(data, &env)
}

// certificates is the path of the zone's client certificates.
func (p *process) certificates() string { return "/zones/" + p.ready.ZoneID + "/client_certificates" }

// issue makes a client certificate through the API.
func (p *process) issue(cn string) (tls.Certificate, string) {
	p.t.Helper()
	csr, key, err := makeCSR(issueFlags{subject: "CN=" + cn, keyType: "ecdsa-p256"})
	if err != nil {
		p.t.Fatal(err)
	}
	status, env := p.api("POST", p.certificates(), map[string]any{"csr": string(csr), "validity_days": 30})
	if status != http.StatusOK {
		p.t.Fatalf("issue %s: %d %+v", cn, status, env.Errors)
	}
	var c clientCertificate
	if err := json.Unmarshal(env.Result, &c); err != nil {
		p.t.Fatal(err)
	}
	return keyPair(p.t, []byte(c.Certificate), key), c.ID
}

// devClient is the ready client certificate of --dev.
func (p *process) devClient() tls.Certificate {
	p.t.Helper()
	c, err := tls.LoadX509KeyPair(p.ready.ClientCert, p.ready.ClientKey)
	if err != nil {
		p.t.Fatal(err)
	}
	return c
}

// roots is the pool of the server's root.
func (p *process) roots() *x509.CertPool {
	p.t.Helper()
	data, err := os.ReadFile(p.ready.CA)
	if err != nil {
		p.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		p.t.Fatalf("%s holds no certificate", p.ready.CA)
	}
	return pool
}

// tlsConfig is a client's configuration for the edge.
func (p *process) tlsConfig(certs ...tls.Certificate) *tls.Config {
	return &tls.Config{RootCAs: p.roots(), ServerName: "localhost", Certificates: certs}
}

// edgeAddress is the edge's host:port.
func (p *process) edgeAddress() string {
	return strings.Replace(strings.TrimPrefix(p.ready.Edge, "https://"), "localhost", "127.0.0.1", 1)
}

// client is an HTTP client with its own connections.
func (p *process) client(certs ...tls.Certificate) *http.Client {
	return &http.Client{Transport: &http.Transport{TLSClientConfig: p.tlsConfig(certs...), ForceAttemptHTTP2: true}, Timeout: 30 * time.Second}
}

// get asks the edge and returns status and body.
func (p *process) get(client *http.Client, path string) (int, string) {
	p.t.Helper()
	resp, err := client.Get(p.ready.Edge + path)
	if err != nil {
		p.t.Fatalf("GET %s: %v\n%s", path, err, p.log)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSpace(string(body))
}

// sekisho runs a command and returns its output and exit code.
func sekisho(t *testing.T, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := exec.Command(binary, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err := cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// keyPair joins a certificate in PEM and its key.
func keyPair(t *testing.T, certPEM []byte, key crypto.Signer) tls.Certificate {
	t.Helper()
	data, err := pkix.EncodePrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(certPEM, data)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// startConfigured starts `serve --config` with one host, localhost, in front of the upstream, that requires
// certificates of the managed CA. more is added to the host.
func startConfigured(t *testing.T, dir, upstream, more string) *process {
	t.Helper()
	return start(t, dir, "--config", configFile(t, upstream, more), "--data", dir)
}

// configFile writes the file of startConfigured.
func configFile(t *testing.T, upstream, more string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "sekisho.yaml")
	config := fmt.Sprintf(`
listen: {edge: "127.0.0.1:0", admin: "127.0.0.1:0", pki: "127.0.0.1:0", metrics: "127.0.0.1:0"}
log: {access: "off"}
limits: {handshakes_per_ip: 5000}
hosts:
  - name: localhost
    names: ["127.0.0.1"]
    default: true
    upstreams: [%q]
    client_auth: {mode: require}
%s`, upstream, more)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
