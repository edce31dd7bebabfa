package servercert

import "context"

// RefreshAll does at once what Run does every few seconds.
func RefreshAll(m *Manager, ctx context.Context) { m.refreshAll(ctx) }
