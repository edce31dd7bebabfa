package peer_test

import (
	"context"
	"net"
	"testing"
	"time"

	"sekisho/bench/internal/load"
	"sekisho/bench/internal/peer"
	"sekisho/bench/internal/pki"
	"sekisho/bench/internal/proc"
	"sekisho/bench/internal/upstream"
)

// TestNginxWithList pins what makes the rows with lists worth something: a server that takes no notice of its list is
// not measured, and a reload is over only when another worker serves.
func TestNginxWithList(t *testing.T) {
	dir := t.TempDir()
	files, err := pki.Make(dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	clients, err := pki.LoadClients(dir)
	if err != nil {
		t.Fatal(err)
	}
	revoked, err := pki.LoadRevoked(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list peer.CRL
	if list.List, err = pki.MakeList(dir, 1000); err != nil {
		t.Fatal(err)
	}
	if list.ListPEM, err = pki.ListPEM(list.List); err != nil {
		t.Fatal(err)
	}
	origin, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { origin.Close() })
	go func() { _ = upstream.Serve(origin) }() // ends when the listener is closed

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := peer.Config{
		Dir: t.TempDir(), Origin: origin.Addr().String(), Files: files, Client: clients[0], Nginx: "/usr/sbin/nginx", CPU: "0", CRL: &list,
	}
	list.Revoked = &clients[0] // whom the list does not name: as if nginx had not read it
	if p, err := peer.Start(ctx, "nginx", c); err == nil {
		p.Stop()
		t.Error("a server that lets a revoked client in is measured")
	}
	list.Revoked = &revoked
	asked := 0
	c.Answered = func(*peer.Peer) error { asked++; return nil }
	p, err := peer.Start(ctx, "nginx", c)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop()
	if p.Started <= 0 || asked != 1 {
		t.Errorf("started in %v, Answered called %d times", p.Started, asked)
	}
	before, err := proc.Tree(p.PID)
	if err != nil {
		t.Fatal(err)
	}
	looks := 0
	took, _, err := p.Reload(ctx, func() { looks++ })
	if err != nil || took <= 0 || looks == 0 {
		t.Fatalf("reload: %v in %v, looked %d times", err, took, looks)
	}
	after, err := proc.Tree(p.PID)
	if err != nil {
		t.Fatal(err)
	}
	for id := range after {
		if _, there := before[id]; there != (id == p.PID) {
			t.Errorf("process %d was there before: %v", id, there)
		}
	}
	if m, err := proc.MemoryOf(p.PID); err != nil || m.PSS <= m.PSSAnon || m.RssAnon <= m.PSSAnon || m.Peak < 1<<20 {
		t.Errorf("memory of master and worker: %+v, %v", m, err)
	}
	if err := load.Probe(p.Addr, &revoked); err == nil {
		t.Error("the new worker lets a revoked client in")
	}
}
