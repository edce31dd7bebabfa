-- +goose Up
-- What a delta CRL tells of: the certificates whose state changed after a number, revoked or active again.
CREATE INDEX certificates_changed ON certificates (ca, shard, crl_number) WHERE crl_number > 0;

-- The numbers that were raised for a renewal, with their time: the bases that deltas may have. The newest few are kept.
CREATE TABLE crl_bases (
    ca     INTEGER NOT NULL REFERENCES cas (ref),
    shard  INTEGER NOT NULL,
    number INTEGER NOT NULL CHECK (number >= 1),
    at     INTEGER NOT NULL,
    PRIMARY KEY (ca, shard, number)
) STRICT, WITHOUT ROWID;

-- Every address that certificates were given for their CRLs; the highest seq is the one in use.
CREATE TABLE pki_urls (
    seq INTEGER PRIMARY KEY,
    url TEXT NOT NULL UNIQUE
) STRICT;
