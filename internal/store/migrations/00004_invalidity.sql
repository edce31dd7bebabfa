-- +goose Up
-- Since when the key of a revoked certificate is thought to be compromised; the default is "not said".
ALTER TABLE certificates ADD COLUMN invalidity INTEGER NOT NULL DEFAULT -62135596800000000;

-- Still everything that CRLs and the revocation index need.
DROP INDEX certificates_revoked;
CREATE INDEX certificates_revoked ON certificates (ca, shard, not_after, issuer, serial, reason, revoked_at, invalidity)
    WHERE status = 1;
