package store

import "context"

// TicketKeys returns the sealed session ticket keys of epoch from and later, by epoch.
func (s *Store) TicketKeys(ctx context.Context, from int64) (map[int64][]byte, error) {
	keys := map[int64][]byte{}
	err := s.read.each(ctx, `SELECT epoch, sealed FROM ticket_keys WHERE epoch >= ?`, []any{from}, func(scan scan) error {
		var epoch int64
		var sealed []byte
		if err := scan(&epoch, &sealed); err != nil {
			return err
		}
		keys[epoch] = sealed
		return nil
	})
	if err != nil {
		return nil, err
	}
	return keys, nil
}

// AddTicketKey stores a sealed key durably if the epoch has none yet, and returns the one that is stored.
func (s *Store) AddTicketKey(ctx context.Context, epoch int64, sealed []byte) (stored []byte, err error) {
	err = s.write.do(ctx, func(ctx context.Context, t *tx) error {
		return t.get(ctx, `INSERT INTO ticket_keys (epoch, sealed) VALUES (?, ?)
			ON CONFLICT (epoch) DO UPDATE SET sealed = sealed RETURNING sealed`, []any{epoch, sealed}, &stored)
	})
	if err != nil {
		return nil, err
	}
	return stored, nil
}

// DropTicketKeys deletes the keys of the epochs before before.
func (s *Store) DropTicketKeys(ctx context.Context, before int64) error {
	return s.write.do(ctx, func(ctx context.Context, t *tx) error {
		err := t.exec(ctx, `DELETE FROM ticket_keys WHERE epoch < ?`, before)
		return err
	})
}
