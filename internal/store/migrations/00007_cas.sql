-- +goose Up
-- Several CAs: what each is for, whether it still issues, where it came from, and what is sent along.
ALTER TABLE cas ADD COLUMN role TEXT NOT NULL DEFAULT '';
ALTER TABLE cas ADD COLUMN retired INTEGER NOT NULL DEFAULT 0 CHECK (retired IN (0, 1));
ALTER TABLE cas ADD COLUMN imported INTEGER NOT NULL DEFAULT 0 CHECK (imported IN (0, 1));
ALTER TABLE cas ADD COLUMN untrusted INTEGER NOT NULL DEFAULT 0 CHECK (untrusted IN (0, 1));
ALTER TABLE cas ADD COLUMN extra BLOB; -- DER certificates one after another
ALTER TABLE cas ADD COLUMN signer BLOB; -- of OCSP answers, made elsewhere
ALTER TABLE cas ADD COLUMN signer_key TEXT NOT NULL DEFAULT '';
ALTER TABLE cas ADD COLUMN list_number TEXT NOT NULL DEFAULT ''; -- of the newest CRL that was imported
ALTER TABLE cas ADD COLUMN list_on INTEGER NOT NULL DEFAULT -62135596800000000;
UPDATE cas SET role = CASE WHEN parent = '' THEN 'root' ELSE 'issuing' END;

-- How many certificates a CA has, so that asking does not read all of them. Triggers keep it.
CREATE TABLE ca_counts (
    ca     INTEGER NOT NULL REFERENCES cas (ref),
    status INTEGER NOT NULL,
    n      INTEGER NOT NULL CHECK (n >= 0),
    PRIMARY KEY (ca, status)
) STRICT, WITHOUT ROWID;
INSERT INTO ca_counts (ca, status, n) SELECT ca, status, count(*) FROM certificates GROUP BY ca, status;

-- +goose StatementBegin
CREATE TRIGGER ca_counts_insert AFTER INSERT ON certificates
BEGIN
    INSERT INTO ca_counts (ca, status, n) VALUES (NEW.ca, NEW.status, 1) ON CONFLICT (ca, status) DO UPDATE SET n = n + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER ca_counts_update AFTER UPDATE OF status ON certificates WHEN NEW.status <> OLD.status
BEGIN
    UPDATE ca_counts SET n = n - 1 WHERE ca = OLD.ca AND status = OLD.status;
    INSERT INTO ca_counts (ca, status, n) VALUES (NEW.ca, NEW.status, 1) ON CONFLICT (ca, status) DO UPDATE SET n = n + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER ca_counts_delete AFTER DELETE ON certificates
BEGIN
    UPDATE ca_counts SET n = n - 1 WHERE ca = OLD.ca AND status = OLD.status;
END;
-- +goose StatementEnd
