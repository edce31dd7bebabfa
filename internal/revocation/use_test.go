package revocation

import (
	"crypto/x509"
	"testing"
	"time"

	"sekisho/internal/testpki"
	"sekisho/internal/trust"
)

// A client whose connections all end before the next beat is looked at once for each of them that no look fell into;
// one that stays, as often as its policy asks.
func TestShortConnectionIsLookedAt(t *testing.T) {
	root := testpki.NewCA(t, testpki.Name("Root"))
	path := []*x509.Certificate{root.Client("client").Cert, root.Cert}
	ca := &trust.CA{ID: "partner", Policy: trust.Policy{Refresh: time.Second}}
	c := NewChecker(CheckerConfig{})
	now := time.Now()
	looks := func(want int) {
		t.Helper()
		if got := len(c.use.turn(now)); got != want {
			t.Errorf("%d paths are looked at, want %d", got, want)
		}
	}

	c.Hold(path, ca)()
	c.Hold(path, ca)() // two connections between two beats: one look
	looks(1)
	looks(0)
	if n := len(c.use.paths); n != 0 {
		t.Errorf("%d paths are kept after their look", n)
	}

	release := c.Hold(path, ca)
	looks(1)
	c.Hold(path, ca)() // beside one that stays: the path was just looked at
	looks(0)
	now = now.Add(time.Second)
	looks(1)
	release()
	now = now.Add(time.Second)
	looks(0)
}
