package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sekisho/internal/auditlog"
)

// auditPage is how many records one call asks for, the most that the API gives.
const auditPage = 1000

// auditView is a record of the audit log as the API shows it.
type auditView struct {
	Seq     int64             `json:"seq"`
	At      time.Time         `json:"at"`
	Actor   string            `json:"actor"`
	Action  string            `json:"action"`
	Object  string            `json:"object"`
	Outcome string            `json:"outcome"`
	Detail  map[string]string `json:"detail"`
	Prev    string            `json:"prev"` // SHA-256, hex
	Hash    string            `json:"hash"`
}

func (v auditView) record() (r auditlog.Record, err error) {
	r = auditlog.Record{Seq: v.Seq, Entry: auditlog.Entry{
		At: v.At, Actor: v.Actor, Action: v.Action, Object: v.Object, Outcome: v.Outcome, Detail: v.Detail,
	}}
	if r.Prev, err = parseHash(v.Prev); err == nil {
		r.Hash, err = parseHash(v.Hash)
	}
	if err != nil {
		return r, fmt.Errorf("audit log: record %d: %w", v.Seq, err)
	}
	return r, nil
}

func parseHash(text string) (hash [32]byte, err error) {
	data, err := hex.DecodeString(text)
	if err != nil || len(data) != len(hash) {
		return hash, fmt.Errorf("%.80q is no SHA-256 in hex", text)
	}
	return [32]byte(data), nil
}

func newAudit(e env) *cobra.Command {
	c := &cobra.Command{
		Use:   "audit",
		Short: "Read the audit log, and check that nobody changed it",
		Long: `audit reads the record of every decision of administrators and of the CA: from the running server by its API, or from
the store in --data when no server runs. Each record carries the hash of the one before it.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newAuditList(e), newAuditVerify(e))
	return c
}

func newAuditList(e env) *cobra.Command {
	var t target
	var from int64
	var asJSON bool
	c := &cobra.Command{
		Use: "list", Short: "List the records, oldest first",
		Example: "  sekisho audit list\n  sekisho audit list --from 1000 --json",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if from < 1 {
				return &usageError{err: fmt.Errorf("--from %d: the first record has the number 1", from)}
			}
			return t.with(c.Context(), e, func(ctx context.Context, a *api) error {
				if asJSON {
					return printAuditJSON(e, auditRecords(ctx, a, from))
				}
				for v, err := range auditRecords(ctx, a, from) {
					if err != nil {
						return err
					}
					if _, err := fmt.Fprintln(e.stdout, v.line()); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	t.flags(c)
	c.Flags().Int64Var(&from, "from", 1, "begin with record `NUMBER`")
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON array, with the hashes")
	return c
}

// line is a record for people: number, time, outcome, who, what, to what, and the rest.
func (v auditView) line() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d  %s  %-7s  %s  %s  %s", v.Seq, v.At.UTC().Format(time.RFC3339), word(v.Outcome), word(v.Actor), word(v.Action), word(v.Object))
	for _, key := range slices.Sorted(maps.Keys(v.Detail)) {
		fmt.Fprintf(&b, "  %s=%s", word(key), word(v.Detail[key]))
	}
	return b.String()
}

// word quotes a text that is not one plain word: callers choose some of them, and a terminal obeys control characters.
func word(text string) string {
	if text == "" || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '"' }) {
		return strconv.Quote(text)
	}
	return text
}

func printAuditJSON(e env, records iter.Seq2[auditView, error]) error {
	all := []auditView{}
	for v, err := range records {
		if err != nil {
			return err
		}
		all = append(all, v)
	}
	return printJSON(e, all)
}

func newAuditVerify(e env) *cobra.Command {
	var t target
	var asJSON bool
	c := &cobra.Command{
		Use: "verify", Short: "Check the chain of hashes over the whole log",
		Long: `verify reads every record and checks that each has its own hash and carries that of the one before it. It prints how many
there are and the last hash. Keep that line elsewhere: a log whose end was cut off is a shorter log that verifies, and only an
older last hash that is no longer in it tells.
Exit codes: 0 whole, 1 broken (the number of the first record that does not fit is in the error) or not readable.`,
		Example: "  sekisho audit verify --data /var/lib/sekisho",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return t.with(c.Context(), e, func(ctx context.Context, a *api) error { return auditVerify(ctx, e, a, asJSON) })
		},
	}
	t.flags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print records and last_hash as JSON")
	return c
}

func auditVerify(ctx context.Context, e env, a *api, asJSON bool) error {
	var last auditView
	err := auditlog.Verify(func(yield func(auditlog.Record, error) bool) {
		for v, err := range auditRecords(ctx, a, 1) {
			var r auditlog.Record
			if err == nil {
				last = v
				r, err = v.record()
			}
			if !yield(r, err) {
				return
			}
		}
	})
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(e, map[string]any{"records": last.Seq, "last_hash": last.Hash})
	}
	_, err = fmt.Fprintf(e.stdout, "%d records, last hash %s\n", last.Seq, last.Hash)
	return err
}

// auditRecords reads the log page by page, from record number from on. An error ends the sequence.
func auditRecords(ctx context.Context, a *api, from int64) iter.Seq2[auditView, error] {
	return func(yield func(auditView, error) bool) {
		for {
			var page []auditView
			env, err := a.send(ctx, "GET", "/sekisho/audit?per_page="+strconv.Itoa(auditPage)+"&from="+strconv.FormatInt(from, 10), nil)
			if err == nil {
				err = json.Unmarshal(env.Result, &page)
			}
			if err != nil {
				yield(auditView{}, err)
				return
			}
			for _, v := range page {
				if v.Seq < from {
					yield(auditView{}, fmt.Errorf("audit log: the server answered with record %d, asked from %d on", v.Seq, from))
					return
				}
				if !yield(v, nil) {
					return
				}
				from = v.Seq + 1
			}
			if len(page) < auditPage {
				return
			}
		}
	}
}
