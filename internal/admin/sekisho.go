package admin

import (
	"cmp"
	"context"
	"encoding/hex"
	"math"
	"net/http"
	"strconv"
	"time"

	"sekisho/internal/auditlog"
)

// The calls under /client/v4/sekisho are ours: what the command line needs of a running server.

// versionObject says what runs here.
type versionObject struct {
	Version string `json:"version"`
	Ready   bool   `json:"ready"` // there is a CA that can issue
}

func (s *server) showVersion(context.Context, *call, none) (versionObject, error) {
	return versionObject{Version: s.Version, Ready: s.Authority.Ready()}, nil
}

// recordObject is a record of the audit log with its place in the chain.
type recordObject struct {
	Seq     int64             `json:"seq"`
	At      string            `json:"at"`
	Actor   string            `json:"actor"`
	Action  string            `json:"action"`
	Object  string            `json:"object"`
	Outcome string            `json:"outcome"`
	Detail  map[string]string `json:"detail"`
	Prev    string            `json:"prev"`
	Hash    string            `json:"hash"`
}

// listAudit answers the records from number from on, oldest first, and pages from there.
func (s *server) listAudit(ctx context.Context, c *call, _ none) ([]recordObject, error) {
	if s.AuditRecords == nil {
		return nil, noRoute(c.url)
	}
	from, err := strconv.ParseInt(cmp.Or(c.query.Get("from"), "1"), 10, 64)
	if err != nil || from < 0 {
		return nil, invalidQuery("from", "want the number of a record")
	}
	p, err := pageOf(c.query)
	if err != nil {
		return nil, err
	}
	if from > math.MaxInt64-maxSkip {
		return []recordObject{}, nil
	}
	records, err := s.AuditRecords(ctx, from+int64(p.skip()), p.size)
	if err != nil {
		return nil, err
	}
	objects := make([]recordObject, len(records))
	for i, r := range records {
		objects[i] = recordObject{
			Seq: r.Seq, At: r.At.UTC().Format(time.RFC3339Nano), Actor: r.Actor, Action: r.Action, Object: r.Object,
			Outcome: r.Outcome, Detail: r.Detail, Prev: hex.EncodeToString(r.Prev[:]), Hash: hex.EncodeToString(r.Hash[:]),
		}
	}
	return objects, nil
}

type reloadObject struct {
	Reloaded bool `json:"reloaded"`
}

// reloadConfig reads the configuration file again. A file that cannot be used changes nothing.
func (s *server) reloadConfig(ctx context.Context, c *call, _ none) (reloadObject, error) {
	if s.Reload == nil {
		return reloadObject{}, noRoute(c.url)
	}
	if err := s.Reload(ctx); err != nil {
		r := refuse(http.StatusBadRequest, codeInvalid, "the configuration was not changed: "+err.Error())
		r.cause = err
		return reloadObject{}, r
	}
	entry := auditlog.Entry{At: s.Now().UTC(), Actor: c.caller.Name, Action: "config.reload", Object: "config", Outcome: "done"}
	return reloadObject{Reloaded: true}, s.Audit(ctx, entry)
}
