-- How far this database has got in the revocation journal, which is a file of its own: the last block that it knows.
-- Written in the transaction of the changes that the block tells of.

-- +goose Up
CREATE TABLE journal_head (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    journal BLOB NOT NULL CHECK (length(journal) = 16),
    epoch   INTEGER NOT NULL CHECK (epoch >= 1),
    seq     INTEGER NOT NULL CHECK (seq >= 1),
    offset  INTEGER NOT NULL CHECK (offset >= 1),
    hash    BLOB NOT NULL CHECK (length(hash) = 32),
    touched INTEGER NOT NULL DEFAULT 0 -- counted up to have something to commit
) STRICT;

-- +goose StatementBegin
CREATE TRIGGER journal_head_grows BEFORE UPDATE ON journal_head
WHEN NEW.epoch < OLD.epoch OR NEW.epoch = OLD.epoch AND (NEW.journal <> OLD.journal OR NEW.seq < OLD.seq)
BEGIN
    SELECT RAISE(ABORT, 'the place in the revocation journal only grows');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER journal_head_stays BEFORE DELETE ON journal_head
BEGIN
    SELECT RAISE(ABORT, 'the place in the revocation journal only grows');
END;
-- +goose StatementEnd
