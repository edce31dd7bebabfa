-- +goose Up
-- Search at ten million certificates: every list is read in the order of an index whose first columns are what it is
-- asked for. Where a filter leaves zone, CA, profile or status open, the runs that there are (certificate_counts knows
-- them) are merged. Dates and reason at the end keep what else is asked for inside the index.
DROP INDEX certificates_zone;
DROP INDEX certificates_zone_status;
DROP INDEX certificates_ca;
DROP INDEX certificates_expiry;
DROP INDEX certificates_hold;
CREATE INDEX certificates_newest ON certificates (zone_id, ca, profile, status, issued_on, seq, not_after, reason);
CREATE INDEX certificates_expiry ON certificates (zone_id, ca, profile, status, not_after, seq, issued_on, reason);
-- Those on hold, which may be few among many that are revoked.
CREATE INDEX certificates_hold ON certificates (zone_id, ca, profile, issued_on, seq, not_after)
    WHERE status = 1 AND reason = 6;
-- A common name may be that of every certificate of a zone.
DROP INDEX certificates_common_name;
CREATE INDEX certificates_common_name ON certificates (common_name, zone_id);

-- The subject alternative names, in lower case but for URIs; and for each host name the domains that it is below, with a
-- dot in front.
DROP TABLE certificate_names;
CREATE TABLE certificate_names (
    name TEXT NOT NULL,
    seq  INTEGER NOT NULL, -- of certificates; a foreign key would cost a walk over all names for each that leaves
    PRIMARY KEY (name, seq)
) STRICT, WITHOUT ROWID;
DELETE FROM meta WHERE key = 'names_until';

-- SQL cannot read the names out of the certificates that are here already: Store.IndexNames does, from this one down.
INSERT INTO meta (key, value) SELECT 'names_left', max(seq) FROM certificates HAVING max(seq) IS NOT NULL;

-- The totals, by CA too.
DROP TRIGGER certificates_count;
DROP TRIGGER certificates_recount;
DROP TABLE certificate_counts;
CREATE TABLE certificate_counts (
    zone_id TEXT NOT NULL,
    ca      INTEGER NOT NULL,
    profile TEXT NOT NULL,
    status  INTEGER NOT NULL,
    n       INTEGER NOT NULL CHECK (n >= 0),
    PRIMARY KEY (zone_id, ca, profile, status)
) STRICT, WITHOUT ROWID;
INSERT INTO certificate_counts (zone_id, ca, profile, status, n)
    SELECT zone_id, ca, profile, status, count(*) FROM certificates GROUP BY zone_id, ca, profile, status;

-- +goose StatementBegin
CREATE TRIGGER certificates_count AFTER INSERT ON certificates
BEGIN
    INSERT INTO certificate_counts (zone_id, ca, profile, status, n) VALUES (NEW.zone_id, NEW.ca, NEW.profile, NEW.status, 1)
        ON CONFLICT (zone_id, ca, profile, status) DO UPDATE SET n = n + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER certificates_recount AFTER UPDATE OF status ON certificates WHEN NEW.status <> OLD.status
BEGIN
    UPDATE certificate_counts SET n = n - 1
        WHERE zone_id = OLD.zone_id AND ca = OLD.ca AND profile = OLD.profile AND status = OLD.status;
    INSERT INTO certificate_counts (zone_id, ca, profile, status, n) VALUES (NEW.zone_id, NEW.ca, NEW.profile, NEW.status, 1)
        ON CONFLICT (zone_id, ca, profile, status) DO UPDATE SET n = n + 1;
END;
-- +goose StatementEnd

-- The totals of a CA are sums of those: no table and triggers of their own, which each insert would pay for.
DROP TRIGGER ca_counts_insert;
DROP TRIGGER ca_counts_update;
DROP TRIGGER ca_counts_delete;
DROP TABLE ca_counts;
CREATE VIEW ca_counts AS SELECT ca, status, sum(n) AS n FROM certificate_counts GROUP BY ca, status;

-- What leaves for the archive is named here first, in the transaction that takes it out.
CREATE TABLE leaving (seq INTEGER PRIMARY KEY) STRICT;

DROP TRIGGER certificates_stay;
-- +goose StatementBegin
CREATE TRIGGER certificates_stay BEFORE DELETE ON certificates WHEN NOT EXISTS (SELECT 1 FROM leaving WHERE seq = OLD.seq)
BEGIN
    SELECT RAISE(ABORT, 'the ledger loses no certificate');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER certificates_uncount AFTER DELETE ON certificates
BEGIN
    UPDATE certificate_counts SET n = n - 1
        WHERE zone_id = OLD.zone_id AND ca = OLD.ca AND profile = OLD.profile AND status = OLD.status;
END;
-- +goose StatementEnd
