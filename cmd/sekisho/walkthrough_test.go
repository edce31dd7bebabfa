package main

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// block is a fenced block of a walkthrough.
type block struct {
	kind string // what stands behind the fence: sh, sh background [PORT [log]], sh fails, output, log PORT
	text string
	line int
}

// blocks returns the fenced blocks of a document.
func blocks(t *testing.T, path string) []block {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out []block
	var open *block
	scanner := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; scanner.Scan(); n++ {
		line := scanner.Text()
		switch fence := strings.HasPrefix(line, "```"); {
		case fence && open == nil:
			open = &block{kind: strings.TrimSpace(strings.TrimPrefix(line, "```")), line: n}
		case fence:
			out = append(out, *open)
			open = nil
		case open != nil:
			open.text += line + "\n"
		}
	}
	return out
}

// freePort returns a port that was free a moment ago. It is below those that Linux gives to whoever asks for any, or one of
// the many that listen and connect beside this test would take it before it is used.
func freePort(t *testing.T) string {
	t.Helper()
	for range 100 {
		port := fmt.Sprint(20_000 + rand.IntN(12_000))
		if ln, err := net.Listen("tcp", "127.0.0.1:"+port); err == nil {
			ln.Close()
			return port
		}
	}
	t.Fatal("no port of a hundred between 20000 and 32000 is free")
	return ""
}

// walk executes a document's blocks: "sh" in a bash of its own each, "sh background" until the end of the test, "sh fails"
// must fail. The lines of an "output" block must stand in what the block before it printed, in that order. Ports are
// replaced by free ones. A background block has begun once its port takes connections: the one behind the fence, or that
// of --edge. With "log" behind the port, a log block says when: openssl's responder is stuck once a client has connected
// and gone without a word.
func walk(t *testing.T, path string, ports ...string) {
	dir := t.TempDir()
	environment := append(os.Environ(), "PATH="+filepath.Dir(binary)+":"+os.Getenv("PATH"), "HOME="+dir, "no_proxy=*")
	replace := make([]string, 0, 2*len(ports))
	logs := make(map[string]*logBuffer)
	for _, port := range ports {
		replace = append(replace, port, freePort(t))
	}
	replacer := strings.NewReplacer(replace...)
	printed := ""
	for _, b := range blocks(t, path) {
		text := replacer.Replace(b.text)
		script := exec.Command("bash", "-c", text)
		script.Dir, script.Env = dir, environment
		where := fmt.Sprintf("%s:%d", filepath.Base(path), b.line)
		switch kind, arg, _ := strings.Cut(b.kind, " "); {
		case b.kind == "sh" || b.kind == "sh fails":
			out, err := script.CombinedOutput()
			printed = string(out)
			if (err != nil) != (b.kind == "sh fails") {
				t.Fatalf("%s: %v\n%s\n%s", where, err, text, out)
			}
		case strings.HasPrefix(b.kind, "sh background"):
			log := &logBuffer{}
			port := regexp.MustCompile(`(?:^sh background |--edge :)(\d+)`).FindStringSubmatch(b.kind + "\n" + b.text)
			if port == nil {
				t.Fatalf("%s: a background block names its port, or starts a server with --edge :PORT", where)
			}
			logs[port[1]] = log
			runBackground(t, script, log)
			if !strings.HasSuffix(b.kind, " log") {
				waitForPort(t, replacer.Replace(port[1]), log)
			}
		case kind == "output":
			expectInOrder(t, where, text, printed)
		case kind == "log":
			expectSoon(t, where, b.text, logs[arg])
		}
	}
}

// runBackground starts a script in a process group of its own and ends the group with the test.
func runBackground(t *testing.T, script *exec.Cmd, log *logBuffer) {
	t.Helper()
	script.Stdout, script.Stderr = log, log
	script.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := script.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-script.Process.Pid, syscall.SIGTERM)
		if err := script.Wait(); err != nil && !strings.Contains(err.Error(), "signal: terminated") {
			t.Errorf("background server: %v\n%s", err, log)
		}
	})
}

func waitForPort(t *testing.T, port string, log *logBuffer) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("tcp", "127.0.0.1:"+port); err == nil {
			c.Close()
			return
		}
	}
	t.Fatalf("nothing listens on %s\n%s", port, log)
}

func expectInOrder(t *testing.T, where, want, got string) {
	t.Helper()
	rest := got
	for line := range strings.Lines(want) {
		line = strings.TrimSpace(line)
		_, after, ok := strings.Cut(rest, line)
		if !ok {
			t.Fatalf("%s: %q is not (in this order) in the output:\n%s", where, line, got)
		}
		rest = after
	}
}

func expectSoon(t *testing.T, where, want string, log *logBuffer) {
	t.Helper()
	if log == nil {
		t.Fatalf("%s: no background server has that port", where)
	}
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if strings.Contains(log.String(), strings.TrimSpace(want)) {
			return
		}
	}
	t.Fatalf("%s: the log does not have %q:\n%s", where, want, log)
}

// TestWalkthroughMTLSWorkshop executes the workshop with sekisho as its server.
func TestWalkthroughMTLSWorkshop(t *testing.T) {
	walk(t, "../../docs/walkthroughs/mtls-workshop.md", "8443", "9443")
}

// TestWalkthroughRevocation executes the article on revocation with sekisho in Cloudflare's place.
func TestWalkthroughRevocation(t *testing.T) {
	walk(t, "../../docs/walkthroughs/mtls-revocation.md", "8443", "8440", "8441", "8088", "2560")
}

// TestREADMESession executes the README's session against a server as `make run` starts it.
func TestREADMESession(t *testing.T) {
	var session string
	for _, b := range blocks(t, "../../README.md") {
		if b.kind == "sh session" {
			session = b.text
		}
	}
	if session == "" {
		t.Fatal("README.md has no session")
	}
	dir := t.TempDir()
	p := startDev(t, filepath.Join(dir, "sekisho-data"))
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(binary, filepath.Join(dir, "bin", "sekisho")); err != nil {
		t.Fatal(err)
	}
	var script, want strings.Builder
	for line := range strings.Lines(session) {
		if expected, ok := strings.CutPrefix(line, "# "); ok {
			want.WriteString(expected)
		} else {
			script.WriteString(strings.ReplaceAll(line, "https://localhost:8443", p.ready.Edge))
		}
	}
	cmd := exec.Command("bash", "-e", "-c", script.String())
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, script.String(), out)
	}
	expectInOrder(t, "README.md", want.String(), string(out))
	p.stop()
}
