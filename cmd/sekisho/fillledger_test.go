package main

import (
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite" // the driver the store uses

	"sekisho/internal/ca"
	"sekisho/internal/keystore"
	"sekisho/internal/pkix"
	"sekisho/internal/store"
	revocations "sekisho/internal/store/journal"
)

// history is a year's work of a CA, made in a minute: certificates that were issued evenly over the last year, of which
// every so many-th was revoked, in the shards and with the CRL numbers that it would have had.
type history struct {
	issued, revoked int
	reason          int // of all; 0: the four that say nothing of the key, in turn
}

// fillLedger writes a history into the ledger and the journal of a data directory in which no server runs. Rows are those of
// a certificate that is there already, under ids, serial numbers, hashes and names of their own; where that has its
// certificate and its request they have as many zeros, which nobody parses. `sekisho store verify` finds nothing wrong
// with it. The audit log does not tell of it.
func fillLedger(t *testing.T, dir string, b history) {
	t.Helper()
	path := filepath.Join(dir, "sekisho.db")
	db := openDatabase(t, path)
	template := texts(t, db, `SELECT max(seq) FROM certificates WHERE profile = 'client'`)[0]
	last := texts(t, db, `SELECT max(seq) FROM certificates`)[0]
	script := fillScript(t, db, template, b)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "sqlite3", "-bail", "-batch", path)
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("fill the ledger: %v\n%s", err, out)
	}
	db = openDatabase(t, path)
	appendJournal(t, db, dir, last)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	// Or the writes of the test would share the disk with what is left of the filling.
	for _, file := range []string{path, store.JournalPath(filepath.Join(dir, "journal"))} {
		f, err := os.OpenFile(file, os.O_RDWR, 0)
		if err == nil {
			err = f.Sync()
		}
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
}

func openDatabase(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path}).String())
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { db.Close() })
	return db
}

func texts(t *testing.T, db *sql.DB, query string) (out []string) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			t.Fatal(err)
		}
		out = append(out, text)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// fillScript is what the sqlite3 program does, in a third of the time that the driver would take. Filling first and
// sorting the indexes once is much faster than millions of random insertions into each; so is counting once.
func fillScript(t *testing.T, db *sql.DB, template string, b history) string {
	t.Helper()
	const ofCertificates = ` FROM sqlite_master WHERE type = 'index' AND tbl_name = 'certificates' AND sql IS NOT NULL`
	lines := []string{
		`PRAGMA journal_mode = OFF`, `PRAGMA synchronous = OFF`, `PRAGMA locking_mode = EXCLUSIVE`,
		`PRAGMA cache_size = -524288`, `PRAGMA temp_store = MEMORY`, `PRAGMA threads = 2`, `BEGIN`, `DROP TRIGGER certificates_count`,
	}
	for _, name := range texts(t, db, `SELECT name`+ofCertificates) {
		lines = append(lines, `DROP INDEX `+name)
	}
	lines = append(lines, insertBulk(t, db, template, b))
	lines = append(lines, texts(t, db, `SELECT sql`+ofCertificates)...)
	var by []string
	for _, column := range texts(t, db, `SELECT name FROM pragma_table_info('certificate_counts')`) {
		if column != "n" {
			by = append(by, column)
		}
	}
	group := strings.Join(by, ", ")
	lines = append(lines,
		`DELETE FROM certificate_counts`,
		`INSERT INTO certificate_counts (`+group+`, n) SELECT `+group+`, count(*) FROM certificates GROUP BY `+group,
	)
	lines = append(lines, texts(t, db, `SELECT sql FROM sqlite_master WHERE type = 'trigger' AND name = 'certificates_count'`)...)
	lines = append(lines,
		`INSERT INTO crl_numbers (ca, shard, number) SELECT ca, shard, max(crl_number) FROM certificates WHERE crl_number > 0 GROUP BY ca, shard
			ON CONFLICT (ca, shard) DO UPDATE SET number = excluded.number WHERE excluded.number > number`,
		// The bases that renewals of the last day have left.
		`DELETE FROM crl_bases WHERE shard >= 0 AND ca = `+caOf(template),
		fmt.Sprintf(`INSERT INTO crl_bases (ca, shard, number, at)
			WITH j (j) AS (VALUES (0), (1), (2), (3), (4), (5), (6), (7))
			SELECT ca, shard, number - j * %[1]d, %[2]d - j * %[3]d FROM crl_numbers, j
			WHERE shard >= 0 AND ca = %[4]s AND number > j * %[1]d`,
			1+b.revoked/16/365/7, time.Now().Truncate(time.Second).UnixMicro(), (24*time.Hour/7).Microseconds(), caOf(template)),
		`COMMIT`,
	)
	return strings.Join(lines, ";\n") + ";\n"
}

func caOf(seq string) string { return `(SELECT ca FROM certificates WHERE seq = ` + seq + `)` }

// insertBulk is the statement that inserts the rows: i counts them, and i / every those that are revoked.
func insertBulk(t *testing.T, db *sql.DB, template string, b history) string {
	t.Helper()
	const year = 365 * 24 * time.Hour
	every := b.issued / b.revoked
	revoked := func(value, otherwise string) string {
		return fmt.Sprintf(`CASE i %% %d WHEN 0 THEN %s ELSE %s END`, every, value, otherwise)
	}
	issuedOn := fmt.Sprintf(`%d + i * %d`, time.Now().Add(-year).UnixMicro(), int(year.Microseconds())/b.issued)
	reason := fmt.Sprint(b.reason)
	if b.reason == 0 {
		reason = fmt.Sprintf(`CASE i / %d %% 4 WHEN 0 THEN %d WHEN 1 THEN %d WHEN 2 THEN %d ELSE %d END`, every,
			pkix.AffiliationChanged, pkix.Superseded, pkix.CessationOfOperation, pkix.PrivilegeWithdrawn)
	}
	own := map[string]string{
		"id":     `printf('%08x-0000-4000-8000-%012x', i, i)`,
		"serial": `CAST(CAST(char(90) AS BLOB) || randomblob(19) AS BLOB)`, // positive, and of 20 octets
		"shard":  fmt.Sprintf(`i / %d %% a.shards`, every), "key_hash": `randomblob(32)`, "fingerprint": `randomblob(32)`,
		"common_name": `'device-' || i || '.example.org'`, "issued_on": issuedOn, "not_before": issuedOn,
		"not_after": fmt.Sprintf(`%s + %d`, issuedOn, (2 * year).Microseconds()), "valid_days": "730",
		"status": revoked("1", "0"), "reason": revoked(reason, "0"), "revoked_at": revoked(issuedOn, "c.revoked_at"),
		"crl_number": revoked(fmt.Sprintf(`coalesce((SELECT n.number FROM crl_numbers n WHERE n.ca = c.ca AND n.shard = i / %[1]d %% a.shards), 0)
			+ i / %[1]d / a.shards + 1`, every), "0"),
		"der": "zeroblob(length(c.der))", "csr": "zeroblob(length(c.csr))",
	}
	var columns, values []string
	for _, column := range texts(t, db, `SELECT name FROM pragma_table_info('certificates') WHERE name <> 'seq'`) {
		value := own[column]
		if value == "" {
			value = "c." + column
		}
		columns, values = append(columns, column), append(values, value)
	}
	return fmt.Sprintf(`INSERT INTO certificates (%s)
		WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < %d)
		SELECT %s FROM n, certificates c JOIN cas a ON a.ref = c.ca WHERE c.seq = %s`,
		strings.Join(columns, ", "), b.issued, strings.Join(values, ", "), template)
}

// appendJournal tells the revocation journal of every revoked row behind a seq, and the database how far it is.
func appendJournal(t *testing.T, db *sql.DB, dir, behind string) {
	t.Helper()
	keys, err := keystore.Open(keystore.Config{Dir: filepath.Join(dir, "keys")})
	if err != nil {
		t.Fatal(err)
	}
	signer, err := keys.Signer(journalKeyName)
	if err != nil {
		t.Fatal(err)
	}
	f, err := revocations.Open(revocations.Config{Path: store.JournalPath(filepath.Join(dir, "journal")), Signer: signer})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var head revocations.Head
	var id, hash []byte
	if err := db.QueryRow(`SELECT journal, seq, offset, hash FROM journal_head`).Scan(&id, &head.Seq, &head.Offset, &hash); err != nil {
		t.Fatal(err)
	}
	copy(head.ID[:], id)
	copy(head.Hash[:], hash)
	if err := f.Seek(head); err != nil {
		t.Fatal(err)
	}
	const together = 16 // revocations of one commit: between one at a time and the 64 that may share one
	for block := range slices.Chunk(revokedStates(t, db, behind), together) {
		if err := f.Append(block); err != nil {
			t.Fatal(err)
		}
	}
	head = f.Head()
	if _, err := db.Exec(`UPDATE journal_head SET seq = ?, offset = ?, hash = ?`, head.Seq, head.Offset, head.Hash[:]); err != nil {
		t.Fatal(err)
	}
}

// revokedStates are the journal's records of the revoked rows behind a seq.
func revokedStates(t *testing.T, db *sql.DB, behind string) (records []revocations.Record) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), `SELECT c.id, c.zone_id, a.id, c.profile, i.key, c.serial, c.shard, c.key_hash, c.common_name,
			c.not_before, c.not_after, c.issued_on, c.valid_days, c.reason, c.revoked_at, c.crl_number, c.fingerprint
		FROM certificates c JOIN cas a ON a.ref = c.ca JOIN issuers i ON i.ref = c.issuer WHERE c.seq > `+behind+` AND c.status = 1 ORDER BY c.seq`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		c := ca.Certificate{Status: ca.Revoked}
		var issuer, serial, key, fingerprint sql.RawBytes
		var before, after, issued, revoked int64
		err := rows.Scan(&c.ID, &c.ZoneID, &c.CAID, &c.Profile, &issuer, &serial, &c.Shard, &key, &c.CommonName,
			&before, &after, &issued, &c.ValidDays, &c.Reason, &revoked, &c.CRLNumber, &fingerprint)
		if err != nil {
			t.Fatal(err)
		}
		copy(c.IssuerKey[:], issuer)
		copy(c.KeyHash[:], key)
		copy(c.Fingerprint[:], fingerprint)
		c.Serial = pkix.SerialFromBytes(serial)
		c.NotBefore, c.NotAfter = time.UnixMicro(before).UTC(), time.UnixMicro(after).UTC()
		c.IssuedOn, c.RevokedAt = time.UnixMicro(issued).UTC(), time.UnixMicro(revoked).UTC()
		records = append(records, revocations.Record{State: &revocations.State{Certificate: c}})
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return records
}
