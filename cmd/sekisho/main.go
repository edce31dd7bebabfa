// Command sekisho is the checkpoint: an mTLS edge with the CA, the revocation and the API it needs, in one binary.
//
// This package is the only place with flags, environment, the configuration file, wiring and exit codes.
// One file per command; run "sekisho --help".
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// version is what `sekisho version` prints; the release build sets it by -ldflags.
var version = "0.1-dev"

// Exit codes, listed in the help of the root command.
const (
	exitOK      = 0
	exitRefused = 1 // the command was understood and the answer is no, or it failed
	exitUsage   = 2 // bad flags, arguments or input
)

// env is what a command may touch of the outside world.
type env struct {
	stdin  io.Reader
	stdout io.Writer // data only
	stderr io.Writer
	getenv func(string) string
}

// usageError is a mistake in how the command was called; hint says what to do.
type usageError struct {
	err  error
	hint string
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// hinted is an error with advice.
type hinted struct {
	err  error
	hint string
}

func (e *hinted) Error() string { return e.err.Error() }
func (e *hinted) Unwrap() error { return e.err }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	e := env{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv}
	code := run(ctx, e, os.Args[1:])
	stop()
	os.Exit(code)
}

// run is main without the process: it returns the exit code.
func run(ctx context.Context, e env, args []string) int {
	root := newRoot(e)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(e.stderr, "error: %v\n", err)
	var usage *usageError
	var hint *hinted
	switch {
	case errors.As(err, &usage):
		if usage.hint != "" {
			fmt.Fprintf(e.stderr, "hint: %s\n", usage.hint)
		}
		return exitUsage
	case errors.As(err, &hint):
		fmt.Fprintf(e.stderr, "hint: %s\n", hint.hint)
		return exitRefused
	case strings.HasPrefix(err.Error(), "unknown command"):
		fmt.Fprintln(e.stderr, "hint: sekisho --help lists the commands")
		return exitUsage
	}
	return exitRefused
}

func newRoot(e env) *cobra.Command {
	root := &cobra.Command{
		Use:   "sekisho",
		Short: "The checkpoint: an mTLS edge that lets in valid, unrevoked client certificates only",
		Long: `sekisho (関所, checkpoint) stands in front of your services and lets a client through only on a
valid, unrevoked client certificate. Revoking one ends every connection that it has open.

Start here:
  sekisho serve --dev          a checkpoint with its own CA on this machine, ready in a second
  sekisho cert list            what was issued
  sekisho cert revoke SERIAL   refused from now on, on open connections too

Exit codes: 0 done, 1 refused or failed, 2 wrong usage or unreadable input.`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetOut(e.stdout)
	root.SetErr(e.stderr)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return &usageError{err: err, hint: c.CommandPath() + " --help lists the flags"}
	})
	root.Version = version
	root.SetVersionTemplate("sekisho {{.Version}}\n")
	root.AddCommand(newServe(e), newConfig(e), newCA(e), newCert(e), newTrust(e), newExplain(e), newToken(e), newAudit(e), newStore(e), newVersion(e))
	return root
}

func newVersion(e env) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			if asJSON {
				return printJSON(e, map[string]string{"version": version, "go": runtime.Version()})
			}
			_, err := fmt.Fprintln(e.stdout, "sekisho", version)
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print it as JSON, with the Go version it was built by")
	return c
}

// noArgs is cobra.NoArgs in our words: commands that only hold others name the one that does not exist.
func noArgs(c *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case c.HasSubCommands():
		return &usageError{err: fmt.Errorf("unknown command %q for %q", args[0], c.CommandPath()), hint: c.CommandPath() + " --help lists the commands"}
	}
	return &usageError{err: fmt.Errorf("%s takes no arguments, and %q is one", c.CommandPath(), args[0]), hint: c.CommandPath() + " --help lists the flags"}
}
