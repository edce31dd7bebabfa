package store

import (
	"context"
	"database/sql"
	"errors"
	"slices"

	"sekisho/internal/auditlog"
	"sekisho/internal/site"
)

const selectZone = `SELECT id, name, account_id, created_on, read_only FROM zones `

func scanZone(scan scan) (z site.Zone, err error) {
	var created int64
	err = scan(&z.ID, &z.Name, &z.AccountID, &created, &z.ReadOnly)
	z.CreatedOn = fromMicros(created)
	return z, err
}

// Zones implements site.Records.
func (s *Store) Zones(ctx context.Context) ([]site.Zone, error) {
	zones, err := s.zones.get(func() ([]site.Zone, error) {
		return collect(ctx, s.read, selectZone+`ORDER BY name`, nil, scanZone)
	})
	return slices.Clone(zones), err
}

// EnsureZone implements site.Records. Of a zone that exists, ReadOnly alone is set to what z says: whether it is in the
// configuration file is known only to who read that file.
func (s *Store) EnsureZone(ctx context.Context, z site.Zone) (stored site.Zone, err error) {
	defer s.zones.forget()
	err = s.write.do(ctx, func(ctx context.Context, t *tx) error {
		var err error
		stored, err = scanZone(t.row(ctx, selectZone+`WHERE name = ?`, z.Name))
		switch {
		case errors.Is(err, sql.ErrNoRows):
			stored = z
			stored.CreatedOn = fromMicros(micros(z.CreatedOn))
			err = t.exec(ctx, `INSERT INTO zones (id, name, account_id, created_on, read_only) VALUES (?, ?, ?, ?, ?)`,
				z.ID, z.Name, z.AccountID, micros(z.CreatedOn), flag(z.ReadOnly))
		case err == nil && stored.ReadOnly != z.ReadOnly:
			stored.ReadOnly = z.ReadOnly
			err = t.exec(ctx, `UPDATE zones SET read_only = ? WHERE id = ?`, flag(z.ReadOnly), stored.ID)
		}
		return err
	})
	if err != nil {
		return site.Zone{}, err
	}
	return stored, nil
}

// Associations implements site.Records, by zone and CA, hostnames in the order given.
func (s *Store) Associations(ctx context.Context) ([]site.Association, error) {
	return collect(ctx, s.read, `SELECT zone_id, ca_id, hostname FROM associations ORDER BY zone_id, ca_id, seq`, nil,
		func(scan scan) (a site.Association, err error) {
			err = scan(&a.ZoneID, &a.CAID, &a.Hostname)
			return a, err
		})
}

// ReplaceAssociations implements site.Records. A hostname given twice counts once.
func (s *Store) ReplaceAssociations(ctx context.Context, zoneID, caID string, hostnames []string, entry auditlog.Entry) error {
	ties := make([]site.Association, len(hostnames))
	for i, h := range hostnames {
		ties[i] = site.Association{ZoneID: zoneID, Hostname: h}
	}
	return s.write.do(ctx, func(ctx context.Context, t *tx) error {
		if caID != "" {
			if err := t.wantTrustedCA(ctx, caID); err != nil {
				return err
			}
		}
		if err := t.exec(ctx, `DELETE FROM associations WHERE zone_id = ? AND ca_id = ?`, zoneID, caID); err != nil {
			return err
		}
		if err := t.tie(ctx, caID, ties); err != nil {
			return err
		}
		return t.audit(ctx, entry)
	})
}

// AllSettings implements site.Records, by zone and hostname.
func (s *Store) AllSettings(ctx context.Context) ([]site.Settings, error) {
	return collect(ctx, s.read, `SELECT zone_id, hostname, china_network, forwarding FROM settings ORDER BY zone_id, hostname`, nil,
		func(scan scan) (v site.Settings, err error) {
			err = scan(&v.ZoneID, &v.Hostname, &v.ChinaNetwork, &v.ClientCertificateForwarding)
			return v, err
		})
}

// PutSettings implements site.Records. All of them belong to zoneID, whatever their own ZoneID says.
func (s *Store) PutSettings(ctx context.Context, zoneID string, settings []site.Settings, entry auditlog.Entry) error {
	return s.write.do(ctx, func(ctx context.Context, t *tx) error {
		for _, v := range settings {
			err := t.exec(ctx, `INSERT INTO settings (zone_id, hostname, china_network, forwarding) VALUES (?, ?, ?, ?)
				ON CONFLICT (zone_id, hostname) DO UPDATE SET china_network = excluded.china_network, forwarding = excluded.forwarding`,
				zoneID, v.Hostname, flag(v.ChinaNetwork), flag(v.ClientCertificateForwarding))
			if err != nil {
				return err
			}
		}
		return t.audit(ctx, entry)
	})
}
