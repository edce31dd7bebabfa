-- The archive: certificates that ended long ago, moved here out of the ledger with their numbers (seq, ca, issuer). It is
-- searched by the same queries, so its indexes have the same names. Columns that the ledger gets later are added at open.

-- +goose Up
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- Copies of the ledger's tables of the same names.
CREATE TABLE cas (
    ref INTEGER PRIMARY KEY,
    id  TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE issuers (
    ref INTEGER PRIMARY KEY,
    key BLOB NOT NULL UNIQUE
) STRICT;

CREATE TABLE certificates (
    seq         INTEGER PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,
    zone_id     TEXT NOT NULL,
    ca          INTEGER NOT NULL,
    profile     TEXT NOT NULL,
    issuer      INTEGER NOT NULL,
    serial      BLOB NOT NULL,
    shard       INTEGER NOT NULL,
    key_hash    BLOB NOT NULL,
    common_name TEXT NOT NULL,
    not_before  INTEGER NOT NULL,
    not_after   INTEGER NOT NULL,
    issued_on   INTEGER NOT NULL,
    valid_days  INTEGER NOT NULL,
    status      INTEGER NOT NULL,
    reason      INTEGER NOT NULL,
    revoked_at  INTEGER NOT NULL,
    crl_number  INTEGER NOT NULL,
    fingerprint BLOB NOT NULL,
    der         BLOB NOT NULL,
    csr         BLOB
) STRICT;

CREATE UNIQUE INDEX certificates_serial ON certificates (serial, issuer);
CREATE INDEX certificates_fingerprint ON certificates (fingerprint);
CREATE INDEX certificates_common_name ON certificates (common_name, zone_id);
CREATE INDEX certificates_key ON certificates (key_hash);
CREATE INDEX certificates_newest ON certificates (zone_id, ca, profile, status, issued_on, seq, not_after, reason);
CREATE INDEX certificates_expiry ON certificates (zone_id, ca, profile, status, not_after, seq, issued_on, reason);
CREATE INDEX certificates_hold ON certificates (zone_id, ca, profile, issued_on, seq, not_after)
    WHERE status = 1 AND reason = 6;
-- For a clock that was ahead when certificates were moved: they may not have ended after all.
CREATE INDEX certificates_revoked ON certificates (not_after) WHERE status = 1;

CREATE TABLE certificate_names (
    name TEXT NOT NULL,
    seq  INTEGER NOT NULL,
    PRIMARY KEY (name, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE certificate_counts (
    zone_id TEXT NOT NULL,
    ca      INTEGER NOT NULL,
    profile TEXT NOT NULL,
    status  INTEGER NOT NULL,
    n       INTEGER NOT NULL CHECK (n >= 0),
    PRIMARY KEY (zone_id, ca, profile, status)
) STRICT, WITHOUT ROWID;

-- +goose StatementBegin
CREATE TRIGGER certificates_count AFTER INSERT ON certificates
BEGIN
    INSERT INTO certificate_counts (zone_id, ca, profile, status, n) VALUES (NEW.zone_id, NEW.ca, NEW.profile, NEW.status, 1)
        ON CONFLICT (zone_id, ca, profile, status) DO UPDATE SET n = n + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER certificates_uncount AFTER DELETE ON certificates
BEGIN
    UPDATE certificate_counts SET n = n - 1
        WHERE zone_id = OLD.zone_id AND ca = OLD.ca AND profile = OLD.profile AND status = OLD.status;
END;
-- +goose StatementEnd
