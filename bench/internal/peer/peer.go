// Package peer starts the servers that are measured, each as its makers would configure it for this work on one core:
// client certificates required, kept-alive connections to the origin, no access log. It builds nothing; a server that
// is not there is an error that says so.
//
//	p, err := peer.Start(ctx, "nginx", peer.Config{...})
//	defer p.Stop()
package peer

import (
	"bytes"
	"context"
	"crypto/tls"
	"debug/buildinfo"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"text/template"
	"time"

	"sekisho/bench/internal/load"
	"sekisho/bench/internal/pki"
)

// Config is what every server is told.
type Config struct {
	Dir     string // for this start's files; must exist
	Origin  string // HOST:PORT of the upstream
	Files   pki.Files
	Client  tls.Certificate // to ask whether it is ready
	Sekisho string          // paths of the programs
	Caddy   string
	Nginx   string
	OpenSSL string
	CFSSL   string
	Self    string // this program, for the bare server
	CPU     string // the one core, as taskset writes it
	CRL     *CRL   // nil: the CA has no lists
	// Answered is called once, at the first answer and before the next request; nil: nothing.
	Answered func(*Peer) error
}

// CRL is about revocation lists, which sekisho and nginx can be told of.
type CRL struct {
	List    string           // path in DER; "": none, but configured in the same way
	ListPEM string           // path of the same in PEM
	Revoked *tls.Certificate // must be refused; nil: the list names nobody who could ask
}

// Peer is a running server.
type Peer struct {
	Addr    string // HOST:PORT of its TLS listener
	PID     int
	Started time.Duration // from its start to the end of the first handshake, which is one without a client certificate
	cmd     *exec.Cmd
	done    chan error
	log     string
}

// kind is how one server is configured and started.
type kind struct {
	name    string
	conf    string // template of its configuration file
	args    func(c Config, conf, addr string) []string
	program func(c Config) string // what is asked for its version; nil: this program itself
}

// Names are all servers in the order of the table.
func Names() []string {
	var names []string
	for _, k := range kinds() {
		names = append(names, k.name)
	}
	return names
}

func kinds() []kind {
	return []kind{
		{"sekisho", sekishoConf, func(c Config, conf, _ string) []string {
			return []string{c.Sekisho, "serve", "--config", conf, "--data", filepath.Join(c.Dir, "data"), "--ready-file", filepath.Join(c.Dir, "ready.json")}
		}, func(c Config) string { return c.Sekisho }},
		{"nginx", nginxConf, func(c Config, conf, _ string) []string {
			return []string{c.Nginx, "-p", c.Dir, "-e", filepath.Join(c.Dir, "error.log"), "-c", conf}
		}, func(c Config) string { return c.Nginx }},
		{"caddy", caddyConf, func(c Config, conf, _ string) []string {
			return []string{c.Caddy, "run", "--adapter", "caddyfile", "--config", conf}
		}, func(c Config) string { return c.Caddy }},
		{"bare", "", func(c Config, _, addr string) []string {
			return []string{c.Self, "bare", addr, "http://" + c.Origin, c.Files.CA, c.Files.Cert, c.Files.Key}
		}, nil},
	}
}

// find returns the kind of a name.
func find(name string) (kind, error) {
	all := kinds()
	if i := slices.IndexFunc(all, func(k kind) bool { return k.name == name }); i >= 0 {
		return all[i], nil
	}
	return kind{}, fmt.Errorf("no server %q; servers are %s", name, strings.Join(Names(), ", "))
}

// Start runs a server alone on the core and returns once it lets a client with a certificate in, and one without or with
// a revoked one not.
func Start(ctx context.Context, name string, c Config) (*Peer, error) {
	k, err := find(name)
	if err != nil {
		return nil, err
	}
	if k.program != nil {
		if _, err := os.Stat(k.program(c)); err != nil {
			return nil, fmt.Errorf("no program %s: build or install it", filepath.Base(k.program(c)))
		}
	}
	addr, err := freeAddr(ctx)
	if err != nil {
		return nil, err
	}
	conf := filepath.Join(c.Dir, name+".conf")
	if err := writeConf(conf, k.conf, c, addr); err != nil {
		return nil, err
	}
	start := time.Now()
	p, err := startProgram(ctx, name, addr, c, k.args(c, conf, addr))
	if err != nil {
		return nil, err
	}
	err = p.until(2*time.Millisecond, func() error { return load.Answers(p.Addr) })
	p.Started = time.Since(start)
	if err == nil && c.Answered != nil {
		err = c.Answered(p)
	}
	if err == nil {
		err = p.ready(c)
	}
	if err != nil {
		p.Stop()
		return nil, fmt.Errorf("%s: %w\n%s", name, err, p.said())
	}
	return p, nil
}

// startProgram starts a program alone on the core. Nothing is known yet of whether it listens.
func startProgram(ctx context.Context, name, addr string, c Config, args []string) (*Peer, error) {
	p := &Peer{Addr: addr, done: make(chan error, 1), log: filepath.Join(c.Dir, name+".log")}
	out, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p.cmd = exec.CommandContext(ctx, "taskset", append([]string{"-c", c.CPU}, args...)...)
	p.cmd.Dir = c.Dir
	p.cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "HOME="+c.Dir, "XDG_DATA_HOME="+c.Dir, "XDG_CONFIG_HOME="+c.Dir)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	p.PID = p.cmd.Process.Pid // taskset becomes the server
	go func() { p.done <- p.cmd.Wait() }()
	return p, nil
}

// said is what the server has printed so far, for people; a log that is missing is said by its absence.
func (p *Peer) said() string {
	text, _ := os.ReadFile(p.log)
	return string(bytes.TrimSpace(text))
}

// ready waits for an answer and sees to it that the server keeps out whom it must.
func (p *Peer) ready(c Config) error {
	if err := p.until(20*time.Millisecond, func() error { return load.Probe(p.Addr, &c.Client) }); err != nil {
		return err
	}
	switch {
	case !refuses(p.Addr, nil):
		return errors.New("lets a client without a certificate in: the comparison would be worth nothing")
	case c.CRL != nil && c.CRL.Revoked != nil && !refuses(p.Addr, c.CRL.Revoked):
		return errors.New("lets a client with a revoked certificate in: the comparison would be worth nothing")
	}
	return nil
}

// refuses reports whether the server keeps a client out. One that does not answer in time has not said so.
func refuses(addr string, cert *tls.Certificate) bool {
	err := load.Probe(addr, cert)
	return err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
}

// until asks again and again, for 20 s at most.
func (p *Peer) until(pause time.Duration, ask func() error) error {
	var last error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(pause) {
		select {
		case err := <-p.done:
			p.done <- err
			return fmt.Errorf("ended at once: %w", errors.Join(err, last))
		default:
		}
		if last = ask(); last == nil {
			return nil
		}
	}
	return fmt.Errorf("no answer within 20 s: %w", last)
}

// Stop ends the server, by force after 5 s.
func (p *Peer) Stop() {
	// An error means that it is gone, which is what is wanted.
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// Version is what is known of a server's program, in one line: of one built by Go its main modules, of nginx what it
// says, OpenSSL included, because that decides about its handshakes.
func Version(ctx context.Context, name string, c Config) string {
	program := map[string]string{"openssl": c.OpenSSL, "cfssl": c.CFSSL}[name]
	if program == "" {
		k, err := find(name)
		if err != nil || k.program == nil {
			return "httputil.ReverseProxy, " + runtime.Version()
		}
		program = k.program(c)
	}
	if name == "openssl" {
		out, err := exec.CommandContext(ctx, program, "version").Output()
		if err != nil {
			return "not there"
		}
		return strings.TrimSpace(string(out))
	}
	if info, err := buildinfo.ReadFile(program); err == nil {
		version := info.Main.Version
		for _, d := range info.Deps {
			// Both are built as tools of a module of ours.
			if strings.HasPrefix(info.Path, d.Path+"/cmd/") {
				version = d.Version
			}
		}
		return version + ", " + info.GoVersion
	}
	out, err := exec.CommandContext(ctx, program, "-V").CombinedOutput()
	if err != nil {
		return "not there"
	}
	lines := strings.SplitN(string(out), "\n", 3)
	return strings.TrimPrefix(strings.Join(lines[:min(len(lines), 2)], ", "), "nginx version: ")
}

// freeAddr finds a port that nobody listens on.
func freeAddr(ctx context.Context) (string, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// writeConf fills a template in. The keys are those of the templates in conf.go.
func writeConf(file, text string, c Config, addr string) error {
	t, err := template.New("conf").Option("missingkey=error").Parse(text)
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	var list CRL
	trust := ""
	if c.CRL != nil {
		trust, list = "own policy", *c.CRL
	}
	var b bytes.Buffer
	if err := t.Execute(&b, map[string]string{
		"Host": pki.Host, "Addr": addr, "Port": port, "Origin": c.Origin, "Dir": c.Dir,
		"CA": c.Files.CA, "Cert": c.Files.Cert, "Key": c.Files.Key, "Trust": trust, "List": list.List, "ListPEM": list.ListPEM,
	}); err != nil {
		return err
	}
	return os.WriteFile(file, b.Bytes(), 0o600)
}
