-- +goose Up
-- CAs of others that came by API. Hostnames are tied to them by associations.ca_id.
CREATE TABLE trusted_cas (
    seq         INTEGER PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE CHECK (id <> ''), -- '' in associations is the managed CA
    product     TEXT NOT NULL,
    zone_id     TEXT NOT NULL, -- '' is the account
    name        TEXT NOT NULL,
    pem         TEXT NOT NULL,
    policy      TEXT NOT NULL, -- JSON of trust.Policy
    uploaded_on INTEGER NOT NULL,
    updated_on  INTEGER NOT NULL
) STRICT;

-- Which hostnames a CA has is asked when it is shown and before it is deleted.
CREATE INDEX associations_ca ON associations (ca_id);

-- +goose StatementBegin
CREATE TRIGGER trusted_cas_tied BEFORE DELETE ON trusted_cas
WHEN EXISTS (SELECT 1 FROM associations WHERE ca_id = OLD.id)
BEGIN
    SELECT RAISE(ABORT, 'hostnames are tied to the CA');
END;
-- +goose StatementEnd
