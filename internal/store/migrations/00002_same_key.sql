-- +goose Up
-- A key that is compromised takes every certificate of it along; without the index that is a walk over the ledger.
CREATE INDEX certificates_key ON certificates (key_hash);
