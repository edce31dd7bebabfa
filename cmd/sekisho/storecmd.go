package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sekisho/internal/auditlog"
	"sekisho/internal/store"
)

// crlDirName is the directory of the data directory that CRLs are published in.
const crlDirName = "crl"

func newStore(e env) *cobra.Command {
	c := &cobra.Command{
		Use:   "store",
		Short: "Check database and revocation journal, and begin a new journal",
		Long: `store works on the data directory of a server that is stopped. The revocation journal is a signed file beside the
database that has every revocation too: a database that is restored from a backup is brought forward with it at the next
start.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newStoreVerify(e), newStoreNewJournal(e))
	return c
}

// stoppedHouse says which data directory a command of store works on.
type stoppedHouse struct {
	data, passphrase string
}

func (s *stoppedHouse) flags(c *cobra.Command) {
	c.Flags().StringVar(&s.data, "data", "sekisho-data", "`DIR` of the server's state")
	c.Flags().StringVar(&s.passphrase, "passphrase-file", "", "`FILE` with the passphrase of the keys, if they have one")
}

// config is the store's configuration, after it was made sure that there is a store and that nobody has it open.
func (s *stoppedHouse) config(e env) (Config, store.Config, error) {
	if _, err := os.Stat(filepath.Join(s.data, "sekisho.db")); err != nil {
		return Config{}, store.Config{}, &hinted{err: fmt.Errorf("there is no checkpoint in %s", s.data), hint: "name its directory with --data DIR"}
	}
	if store.Held(s.data) {
		return Config{}, store.Config{}, &hinted{err: fmt.Errorf("%s: %w", s.data, store.ErrLocked), hint: "stop the server that runs on it first; this command needs the directory for itself"}
	}
	cfg, err := offlineConfig(s.data, s.passphrase)
	if err != nil {
		return cfg, store.Config{}, err
	}
	passphrase, err := readPassphrase(cfg.Keys.PassphraseFile)
	if err != nil {
		return cfg, store.Config{}, err
	}
	h := &house{dir: cfg.Data, logger: slog.New(slog.NewTextHandler(e.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))}
	return cfg, h.storeConfig(cfg, passphrase), nil
}

func newStoreVerify(e env) *cobra.Command {
	var s stoppedHouse
	var asJSON bool
	c := &cobra.Command{
		Use: "verify", Short: "Compare journal, ledger, audit log and published CRLs",
		Long: `verify reads the whole revocation journal (signatures, chain, order) and compares the ledger with it: each certificate,
each CRL number, each CA. It checks the chain of the audit log, and the CRLs that were published in DATA/crl, if there is
such a directory: that each is signed, lists every certificate that was revoked when it was made, and no other. It changes
nothing. The server must be stopped.

Changes that are in the journal and not in the database yet are no finding: the next start brings them forward.
Exit codes: 0 everything fits, 1 something does not (each finding is named) or could not be read.`,
		Example: "  sekisho store verify --data /var/lib/sekisho\n  sekisho store verify --json | jq .findings",
		Args:    noArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return storeVerify(c.Context(), e, &s, asJSON) },
	}
	s.flags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print everything that was counted and found as JSON")
	return c
}

func storeVerify(ctx context.Context, e env, s *stoppedHouse, asJSON bool) error {
	cfg, storeCfg, err := s.config(e)
	if err != nil {
		return err
	}
	report, err := store.Verify(ctx, storeCfg, filepath.Join(cfg.Data, crlDirName))
	if err != nil {
		return storeHint(cfg, err)
	}
	if asJSON {
		err = printJSON(e, report)
	} else {
		err = printStoreReport(e, report)
	}
	if n := len(report.Findings) + report.More; err == nil && n > 0 {
		err = &hinted{
			err:  fmt.Errorf("%s: %d findings", cfg.Data, n),
			hint: "docs/operating.md, \"Restoring a backup\", says what each kind means and what to do",
		}
	}
	return err
}

func printStoreReport(e env, r store.Report) error {
	var b strings.Builder
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "%s: %s\n", f.Where, f.What)
	}
	if r.More > 0 {
		fmt.Fprintf(&b, "and %d more\n", r.More)
	}
	fmt.Fprintf(&b, "journal    %s, epoch %d: %d records in %d blocks\n", r.Journal, r.Epoch, r.Records, r.Blocks)
	if r.Pending > 0 {
		fmt.Fprintf(&b, "           %d of them are not in the database yet: the next start brings them forward\n", r.Pending)
	}
	if r.Torn {
		fmt.Fprintf(&b, "           its last block was not written to its end: the next start cuts it off\n")
	}
	fmt.Fprintf(&b, "ledger     %d certificates compared with the journal, %d more have ended and are gone\n", r.Certificates, r.Gone)
	fmt.Fprintf(&b, "audit log  %d records\n", r.AuditRecords)
	fmt.Fprintf(&b, "CRLs       %d published with %d entries, %d of them older than the ledger\n", r.CRLs, r.Entries, r.CRLsBehind)
	_, err := fmt.Fprint(e.stdout, b.String())
	return err
}

func newStoreNewJournal(e env) *cobra.Command {
	var s stoppedHouse
	var yes bool
	c := &cobra.Command{
		Use: "new-journal", Short: "Take the database as it is, and begin a new revocation journal",
		Long: `new-journal is for a database whose revocation journal is lost or damaged, when no newer copy of it can be put back. It
begins a new journal from the ledger as it is.

What was revoked after this database was written is LOST unless it is revoked again: those certificates are let in. Every
CRL number is raised by 1,000,000, so that none comes again that may have been published since. What is left of the old
journal stays beside the new one, as revocations.log.old-1. It asks for --yes, and it is on record in the audit log.`,
		Example: "  sekisho store new-journal --data /var/lib/sekisho --yes",
		Args:    noArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return storeNewJournal(c.Context(), e, &s, yes) },
	}
	s.flags(c)
	c.Flags().BoolVar(&yes, "yes", false, "revocations that the database does not have may be lost")
	return c
}

func storeNewJournal(ctx context.Context, e env, s *stoppedHouse, yes bool) error {
	cfg, storeCfg, err := s.config(e)
	if err != nil {
		return err
	}
	if !yes {
		return &usageError{
			err:  errors.New("what was revoked after this database was written is lost by this, unless it is revoked again"),
			hint: "put the newest " + store.JournalPath(cfg.journalDir()) + " back if there is one; if not, say --yes",
		}
	}
	entry := auditlog.Entry{
		At: time.Now().UTC(), Actor: localActor(), Action: "store.new-journal", Object: "revocation journal", Outcome: "done",
	}
	if err := store.RenewJournal(ctx, storeCfg, "new-journal by "+entry.Actor, entry); errors.Is(err, store.ErrJournalFits) {
		return &hinted{err: err, hint: "start the server: it brings forward what the journal has and the database has not. To lose that all the same, move the journal away first"}
	} else if err != nil {
		return storeHint(cfg, err)
	}
	_, err = fmt.Fprintf(e.stdout, `new journal  %s
It has what this database has. What was revoked after the database was written is lost: revoke it again before clients
can reach the edge. Every CRL number was raised by 1,000,000.
`, store.JournalPath(cfg.journalDir()))
	return err
}

// localActor is who runs the command.
func localActor() string {
	if u, err := user.Current(); err == nil {
		return "local:" + u.Username
	}
	return "local"
}
