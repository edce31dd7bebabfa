package main

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"sekisho/internal/pkix"
	"sekisho/internal/testpki"
)

// TestCommandLine runs testdata/script/*.txtar: sessions of a shell with the program, its exit codes and its words.
//
// Beside testscript's own commands there are "exits CODE sekisho ARGS", "is-json FILE", "mode OCTAL FILE",
// "ready FILE" (waits for a ready file and sets EDGE, ADMIN, PKI, TOKEN and PORT, the admin API's) and "until TEXT COMMAND" (runs it again
// and again until its output has the text).
func TestCommandLine(t *testing.T) {
	files := certificateFiles(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", filepath.Dir(binary)+string(os.PathListSeparator)+e.Getenv("PATH"))
			for name, data := range files {
				if err := os.WriteFile(filepath.Join(e.WorkDir, name), data, 0o600); err != nil {
					return err
				}
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "is-json": isJSON, "mode": mode, "ready": ready, "until": until,
		},
	})
}

// certificateFiles are the files of every script: server.crt and server.key for localhost, ca.crt of a CA that is not
// ours, client.crt and client.key of it, other.crt and other.key of another host, cn.crt and cn.key without a subject
// alternative name, two.crt with a CA and a leaf, old.crt of a CA that has expired, trailing.crt with bytes behind the
// certificate.
func certificateFiles(t *testing.T) map[string][]byte {
	t.Helper()
	ca := testpki.NewCA(t, testpki.Name("Script Root"))
	files := map[string][]byte{"ca.crt": pkix.EncodeCertificate(ca.Cert.Raw)}
	for name, leaf := range map[string]testpki.Leaf{
		"server": ca.Server("localhost", "127.0.0.1"), "other": ca.Server("other.example"), "client": ca.Client("Script Client"),
		"cn": ca.ServerWith([]string{"only.example"}, testpki.NoSAN()),
	} {
		key, err := pkix.EncodePrivateKey(leaf.Key)
		if err != nil {
			t.Fatal(err)
		}
		files[name+".crt"], files[name+".key"] = pkix.EncodeCertificate(leaf.Cert.Raw), key
	}
	files["two.crt"] = append(append([]byte{}, files["other.crt"]...), files["server.crt"]...)
	files["old.crt"] = testpki.NewCA(t, testpki.Name("Old Root"), testpki.NotBefore(time.Now().AddDate(-2, 0, 0)), testpki.NotAfter(time.Now().AddDate(-1, 0, 0))).PEM
	block, _ := pem.Decode(files["ca.crt"])
	block.Bytes = append(block.Bytes, "trailing"...)
	files["trailing.crt"] = pem.EncodeToMemory(block)
	return files
}

// exits runs a command that must end with a given exit code. Exit codes other than 0 come with a line that says why.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND ARGS...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if code != want {
		ts.Fatalf("exit code %d, want %d", code, want)
	}
	stdout, stderr := ts.ReadFile("stdout"), ts.ReadFile("stderr")
	if code != 0 && !strings.Contains("\n"+stderr, "\nerror: ") {
		ts.Fatalf("exit code %d without a line that begins with error:", code)
	}
	if code != 0 && stdout != "" {
		ts.Fatalf("standard output is for data, and this failed")
	}
}

func isJSON(ts *testscript.TestScript, neg bool, args []string) {
	if data := ts.ReadFile(args[0]); json.Valid([]byte(data)) == neg {
		ts.Fatalf("JSON: %v, of %q", !neg, data)
	}
}

func mode(ts *testscript.TestScript, neg bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", info.Mode().Perm()); (got == args[0]) == neg {
		ts.Fatalf("mode of %s is %s", args[1], got)
	}
}

// ready waits for the JSON of --ready-file and sets variables from it.
func ready(ts *testscript.TestScript, _ bool, args []string) {
	var r readyFile
	poll(ts, "the ready file "+args[0], func() bool {
		data, err := os.ReadFile(ts.MkAbs(args[0]))
		return err == nil && json.Unmarshal(data, &r) == nil
	})
	for name, value := range map[string]string{"EDGE": r.Edge, "ADMIN": r.Admin, "PKI": r.PKI, "TOKEN": r.Token, "PORT": r.Admin[strings.LastIndexByte(r.Admin, ':')+1:]} {
		ts.Setenv(name, value)
	}
}

// until runs a command again and again, for at most half a minute, until its output has a text.
func until(ts *testscript.TestScript, _ bool, args []string) {
	poll(ts, strings.Join(args, " "), func() bool {
		_ = ts.Exec(args[1], args[2:]...) // a command that fails is tried again
		return strings.Contains(ts.ReadFile("stdout")+ts.ReadFile("stderr"), args[0])
	})
}

func poll(ts *testscript.TestScript, what string, done func() bool) {
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			ts.Fatalf("not within half a minute: %s", what)
		}
	}
}

// TestHelp reads the help of every command as somebody new would: it runs, says what the command is for in a whole
// sentence, and no flag is without words or shows a Go type where the kind of value should stand.
func TestHelp(t *testing.T) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		name := c.CommandPath()
		t.Run(name, func(t *testing.T) {
			stdout, stderr, code := sekisho(t, "", append(strings.Fields(name)[1:], "--help")...)
			if code != exitOK || stderr != "" {
				t.Fatalf("exit code %d, standard error %q", code, stderr)
			}
			for _, want := range []string{"Usage:\n  " + name, c.Short} {
				if !strings.Contains(stdout, want) && c.Long == "" {
					t.Errorf("no %q in\n%s", want, stdout)
				}
			}
			for line := range strings.Lines(stdout) {
				fields := strings.Fields(line)
				if len(fields) > 1 && strings.HasPrefix(fields[0], "--") && (fields[1] == "string" || fields[1] == "strings" || fields[1] == "int") {
					t.Errorf("a flag shows a Go type: %q", strings.TrimSpace(line))
				}
				if len([]rune(line)) > 180 {
					t.Errorf("a line of %d characters: %q", len([]rune(line)), line)
				}
			}
			if c.Runnable() && !c.HasSubCommands() && c.Example == "" && name != "sekisho version" {
				t.Error("no example")
			}
		})
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRoot(env{stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv}))
}
