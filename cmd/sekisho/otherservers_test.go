package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// nginx runs nginx with our list and has curl go there as each of the clients. nginx checks every certificate of the
// path, so it wants the root's list too.
func (r *foreignRound) nginx() func(who string) (string, bool) {
	address := "127.0.0.1:" + freePort(r.t)
	var temporary strings.Builder
	for _, of := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&temporary, "  %s_temp_path %s;\n", of, filepath.Join(r.dir, of))
	}
	errorLog := filepath.Join(r.dir, "error.log")
	config := r.file("nginx.conf", fmt.Sprintf(`
daemon off;
master_process off;
pid %s;
error_log %s info;
events {}
http {
  access_log off;
%s
  server {
    listen %s ssl;
    ssl_certificate %s;
    ssl_certificate_key %s;
    ssl_client_certificate %s;
    ssl_verify_client on;
    ssl_verify_depth 2;
    ssl_crl %s;
    location / { return 200 "let in\n"; }
  }
}
`, filepath.Join(r.dir, "nginx.pid"), errorLog, temporary.String(), address, r.path("server-untouched-chain.pem"),
		r.path("server-untouched-key.pem"), r.path("all.pem"), r.path("lists.pem")))
	r.serve(address, "nginx", "-p", r.dir, "-e", errorLog, "-c", config)
	return func(who string) (string, bool) {
		before := r.size(errorLog)
		said, accepted := r.visit(address, who)
		logged, err := os.ReadFile(errorLog)
		if err != nil {
			r.t.Fatal(err)
		}
		return said + string(logged[before:]), accepted
	}
}

// haproxy is nginx for HAProxy, which ends the handshake with an alert.
func (r *foreignRound) haproxy() func(who string) (string, bool) {
	address := "127.0.0.1:" + freePort(r.t)
	config := r.file("haproxy.cfg", fmt.Sprintf(`
global
  maxconn 100
defaults
  mode http
  timeout client 30s
  timeout server 30s
  timeout connect 30s
frontend mtls
  bind %s ssl crt %s ca-file %s verify required crl-file %s
  http-request return status 200 content-type text/plain string "let in"
`, address, r.path("server-untouched-all.pem"), r.path("all.pem"), r.path("lists.pem")))
	r.serve(address, "haproxy", "-db", "-f", config)
	return func(who string) (string, bool) { return r.visit(address, who) }
}

// visit has curl go to a server as a client. It is let in when it reads so.
func (r *foreignRound) visit(address, who string) (said string, accepted bool) {
	said, ok := r.run("curl", "-sS", "--max-time", "30", "--cacert", r.path("root.pem"),
		"--cert", r.path("client-"+who+"-chain.pem"), "--key", r.path("client-"+who+"-key.pem"), "https://"+address+"/")
	return said, ok && strings.Contains(said, "let in")
}

// serve runs a server until the test of this program ends, and waits until its port takes connections.
func (r *foreignRound) serve(address, name string, args ...string) {
	r.t.Helper()
	cmd := exec.CommandContext(r.t.Context(), installed(r.t, name), args...)
	log := &logBuffer{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	r.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			return
		}
		select {
		case err := <-ended:
			ended <- err
			r.t.Fatalf("%s ended: %v\n%s", name, err, log)
		default:
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%s does not listen on %s after 30 s\n%s", name, address, log)
		}
	}
}

func (r *foreignRound) file(name, text string) string {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return path
}

func (r *foreignRound) size(path string) int64 {
	r.t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		r.t.Fatal(err)
	}
	return info.Size()
}
