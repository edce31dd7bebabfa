-- +goose Up
-- The subject alternative names of every certificate whose certificate is known; store/names.go fills it for rows of before.
CREATE TABLE certificate_names (
    name TEXT NOT NULL,
    seq  INTEGER NOT NULL REFERENCES certificates (seq),
    PRIMARY KEY (name, seq)
) STRICT, WITHOUT ROWID;

-- What ends when; the rest is there so that counting and every other condition stay in the index.
CREATE INDEX certificates_expiry ON certificates (zone_id, not_after, seq, ca, status, reason, profile);
-- Pages of one CA, newest first.
CREATE INDEX certificates_ca ON certificates (ca, seq, zone_id, status, reason, profile);
-- On hold: few among many that are revoked.
CREATE INDEX certificates_hold ON certificates (zone_id, seq, ca, profile) WHERE status = 1 AND reason = 6;
