-- The first schema. Times are microseconds since 1970-01-01T00:00Z. Ids of CAs and issuer keys are interned as small
-- integers (ref), which keeps the index that is read for every CRL and at every start at some 50 bytes a row.

-- +goose Up
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE cas (
    ref        INTEGER PRIMARY KEY,
    id         TEXT NOT NULL UNIQUE,
    name       TEXT NOT NULL UNIQUE,
    parent     TEXT NOT NULL,
    key_name   TEXT NOT NULL,
    der        BLOB NOT NULL,
    created_on INTEGER NOT NULL,
    shards     INTEGER NOT NULL CHECK (shards >= 1)
) STRICT;

CREATE TABLE issuers (
    ref INTEGER PRIMARY KEY,
    key BLOB NOT NULL UNIQUE CHECK (length(key) = 32)
) STRICT;

CREATE TABLE certificates (
    seq         INTEGER PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,
    zone_id     TEXT NOT NULL,
    ca          INTEGER NOT NULL REFERENCES cas (ref),
    profile     TEXT NOT NULL,
    issuer      INTEGER NOT NULL REFERENCES issuers (ref),
    serial      BLOB NOT NULL,
    shard       INTEGER NOT NULL CHECK (shard >= 0),
    key_hash    BLOB NOT NULL CHECK (length(key_hash) = 32),
    common_name TEXT NOT NULL,
    not_before  INTEGER NOT NULL,
    not_after   INTEGER NOT NULL,
    issued_on   INTEGER NOT NULL,
    valid_days  INTEGER NOT NULL,
    status      INTEGER NOT NULL CHECK (status IN (0, 1)), -- 0 active, 1 revoked
    reason      INTEGER NOT NULL,
    revoked_at  INTEGER NOT NULL,
    crl_number  INTEGER NOT NULL,
    fingerprint BLOB NOT NULL CHECK (length(fingerprint) = 32),
    der         BLOB NOT NULL CHECK (length(der) > 0),
    csr         BLOB
) STRICT;

-- One certificate an issuer and serial (RFC 5280, Section 4.1.2.2); also the search by serial alone.
CREATE UNIQUE INDEX certificates_serial ON certificates (serial, issuer);
CREATE INDEX certificates_fingerprint ON certificates (fingerprint);
CREATE INDEX certificates_common_name ON certificates (common_name);
-- Pages of a zone, newest first, with and without a status; profile is there so that counting stays in the index.
CREATE INDEX certificates_zone ON certificates (zone_id, seq, profile);
CREATE INDEX certificates_zone_status ON certificates (zone_id, status, seq, profile);
-- Everything that a CRL and the revocation index need, and nothing of the certificates that are not revoked.
CREATE INDEX certificates_revoked ON certificates (ca, shard, not_after, issuer, serial, reason, revoked_at)
    WHERE status = 1;

-- How many there are, so that the total of a search does not cost a walk over a million index entries. Triggers keep it.
CREATE TABLE certificate_counts (
    zone_id TEXT NOT NULL,
    profile TEXT NOT NULL,
    status  INTEGER NOT NULL,
    n       INTEGER NOT NULL CHECK (n >= 0),
    PRIMARY KEY (zone_id, profile, status)
) STRICT, WITHOUT ROWID;

CREATE TABLE blocked_keys (
    key_hash   BLOB PRIMARY KEY CHECK (length(key_hash) = 32),
    blocked_on INTEGER NOT NULL,
    cause      TEXT NOT NULL -- id of the certificate whose key was compromised
) STRICT, WITHOUT ROWID;

CREATE TABLE crl_numbers (
    ca     INTEGER NOT NULL REFERENCES cas (ref),
    shard  INTEGER NOT NULL,
    number INTEGER NOT NULL CHECK (number >= 1),
    PRIMARY KEY (ca, shard)
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
    seq     INTEGER PRIMARY KEY,
    prev    BLOB NOT NULL CHECK (length(prev) = 32),
    hash    BLOB NOT NULL CHECK (length(hash) = 32),
    at      INTEGER NOT NULL,
    actor   TEXT NOT NULL,
    action  TEXT NOT NULL,
    object  TEXT NOT NULL,
    outcome TEXT NOT NULL,
    detail  TEXT NOT NULL -- JSON object of strings
) STRICT;

CREATE TABLE zones (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    account_id TEXT NOT NULL,
    created_on INTEGER NOT NULL,
    read_only  INTEGER NOT NULL CHECK (read_only IN (0, 1))
) STRICT;

CREATE TABLE associations (
    seq      INTEGER PRIMARY KEY,
    zone_id  TEXT NOT NULL,
    ca_id    TEXT NOT NULL, -- '' is the managed CA
    hostname TEXT NOT NULL,
    UNIQUE (zone_id, ca_id, hostname)
) STRICT;

CREATE TABLE settings (
    zone_id       TEXT NOT NULL,
    hostname      TEXT NOT NULL,
    china_network INTEGER NOT NULL CHECK (china_network IN (0, 1)),
    forwarding    INTEGER NOT NULL CHECK (forwarding IN (0, 1)),
    PRIMARY KEY (zone_id, hostname)
) STRICT, WITHOUT ROWID;

CREATE TABLE tokens (
    seq        INTEGER PRIMARY KEY,
    id         TEXT NOT NULL UNIQUE,
    name       TEXT NOT NULL,
    email      TEXT NOT NULL,
    role       TEXT NOT NULL,
    hash       BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
    created_on INTEGER NOT NULL,
    expires_on INTEGER NOT NULL
) STRICT;

CREATE TABLE ticket_keys (
    epoch  INTEGER PRIMARY KEY,
    sealed BLOB NOT NULL
) STRICT;

-- +goose StatementBegin
CREATE TRIGGER certificates_count AFTER INSERT ON certificates
BEGIN
    INSERT INTO certificate_counts (zone_id, profile, status, n) VALUES (NEW.zone_id, NEW.profile, NEW.status, 1)
        ON CONFLICT (zone_id, profile, status) DO UPDATE SET n = n + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER certificates_recount AFTER UPDATE OF status ON certificates WHEN NEW.status <> OLD.status
BEGIN
    UPDATE certificate_counts SET n = n - 1 WHERE zone_id = OLD.zone_id AND profile = OLD.profile AND status = OLD.status;
    INSERT INTO certificate_counts (zone_id, profile, status, n) VALUES (NEW.zone_id, NEW.profile, NEW.status, 1)
        ON CONFLICT (zone_id, profile, status) DO UPDATE SET n = n + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER certificates_stay BEFORE DELETE ON certificates
BEGIN
    SELECT RAISE(ABORT, 'the ledger loses no certificate');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER audit_no_gap BEFORE INSERT ON audit
WHEN NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM audit)
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER crl_numbers_grow BEFORE UPDATE ON crl_numbers
WHEN NEW.number <= OLD.number OR NEW.ca <> OLD.ca OR NEW.shard <> OLD.shard
BEGIN
    SELECT RAISE(ABORT, 'CRL numbers only grow');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER crl_numbers_stay BEFORE DELETE ON crl_numbers
BEGIN
    SELECT RAISE(ABORT, 'CRL numbers only grow');
END;
-- +goose StatementEnd
