package main

import (
	"database/sql"
	"path/filepath"
	"strings"
	"testing"
)

// TestAuditVerifyFindsTheBreak: a record that was changed or taken out of the database is named, with exit code 1.
func TestAuditVerifyFindsTheBreak(t *testing.T) {
	for _, test := range []struct{ name, change, say string }{
		{"changed", `UPDATE audit SET actor = 'nobody' WHERE seq = 2`, "audit log: record 2: its content does not have its hash"},
		{"taken out", `DELETE FROM audit WHERE seq = 1`, "audit log: record 1: missing"},
		{"another time", `UPDATE audit SET at = at + 1 WHERE seq = 3`, "audit log: record 3: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "state")
			if _, stderr, code := sekisho(t, "", "ca", "init", "--data", dir); code != exitOK {
				t.Fatal(stderr)
			}
			if stdout, stderr, code := sekisho(t, "", "audit", "verify", "--data", dir); code != exitOK || !strings.HasPrefix(stdout, "3 records, last hash ") {
				t.Fatalf("exit code %d before anything was changed: %s%s", code, stdout, stderr)
			}
			db, err := sql.Open("sqlite", filepath.Join(dir, "sekisho.db"))
			if err != nil {
				t.Fatal(err)
			}
			for _, q := range []string{`DROP TRIGGER audit_no_update`, `DROP TRIGGER audit_no_delete`, test.change} {
				if _, err := db.ExecContext(t.Context(), q); err != nil {
					t.Fatal(err)
				}
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			stdout, stderr, code := sekisho(t, "", "audit", "verify", "--data", dir)
			if code != exitRefused || stdout != "" || !strings.Contains(stderr, test.say) {
				t.Errorf("exit code %d, %q, %q; want 1 and %q", code, stdout, stderr, test.say)
			}
		})
	}
}
