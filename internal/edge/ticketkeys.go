package edge

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

const (
	ticketEpoch   = time.Hour
	ticketLife    = 18 * time.Hour // 64,800 s: no session lives longer, resumptions included
	ticketEpochs  = int64(ticketLife / ticketEpoch)
	ticketKeySize = 32
)

// epochAt numbers the hours since 1970-01-01T00:00Z.
func epochAt(now time.Time) int64 { return now.Unix() / int64(ticketEpoch/time.Second) }

// ticketKeys is a key per hour. A session sealed in an hour is opened for 18 hours more; then the key is gone from
// memory and store, and with it every session of that hour.
type ticketKeys struct {
	store TicketStore // nil: in memory only
	seal  Sealer

	ring     atomic.Pointer[map[int64]cipher.AEAD] // replaced whole
	rotating sync.Mutex
}

func newTicketKeys(store TicketStore, seal Sealer) *ticketKeys {
	k := &ticketKeys{store: store, seal: seal}
	k.ring.Store(&map[int64]cipher.AEAD{})
	return k
}

// current returns the key to seal with: this hour's or, when rotation is late, the latest before it.
func (k *ticketKeys) current(now time.Time) (epoch int64, key cipher.AEAD) {
	ring := *k.ring.Load()
	for epoch = epochAt(now); epoch >= epochAt(now)-ticketEpochs; epoch-- {
		if key, ok := ring[epoch]; ok {
			return epoch, key
		}
	}
	return 0, nil
}

// at returns the key of an epoch, nil when there is none.
func (k *ticketKeys) at(epoch int64) cipher.AEAD { return (*k.ring.Load())[epoch] }

// due reports whether rotate has something to do.
func (k *ticketKeys) due(now time.Time) bool {
	ring := *k.ring.Load()
	return ring[epochAt(now)] == nil || ring[epochAt(now)+1] == nil
}

// errStore is wrapped by the errors that the store caused.
var errStore = errors.New("ticket key store")

// rotate reads the keys of the last 18 hours, makes this hour's and, ahead of need, the next hour's, and drops older
// ones. When the store cannot be used the keys are in memory only, and the error says so: clients of this node still
// resume here, not after a restart.
func (k *ticketKeys) rotate(ctx context.Context, now time.Time) error {
	k.rotating.Lock()
	defer k.rotating.Unlock()
	cur := epochAt(now)
	oldest := cur - ticketEpochs
	ring := maps.Clone(*k.ring.Load())
	maps.DeleteFunc(ring, func(e int64, _ cipher.AEAD) bool { return e < oldest })
	var errs []error
	if k.store != nil {
		stored, err := k.store.TicketKeys(ctx, oldest)
		if err != nil {
			errs = append(errs, fmt.Errorf("%w: read keys: %w", errStore, err))
		}
		for epoch, sealed := range stored {
			if ring[epoch] != nil || epoch > cur+1 {
				continue
			}
			if ring[epoch], err = k.open(epoch, sealed); err != nil {
				delete(ring, epoch)
				errs = append(errs, err)
			}
		}
	}
	for _, epoch := range []int64{cur, cur + 1} {
		if ring[epoch] != nil {
			continue
		}
		key, err := k.make(ctx, epoch)
		if err != nil {
			errs = append(errs, err)
		}
		ring[epoch] = key
	}
	k.ring.Store(&ring)
	if k.store != nil {
		if err := k.store.DropTicketKeys(ctx, oldest); err != nil {
			errs = append(errs, fmt.Errorf("%w: drop old keys: %w", errStore, err))
		}
	}
	return errors.Join(errs...)
}

// make returns the key of an epoch: a new one, or that of another node that was faster. The key is good also when
// there is an error.
func (k *ticketKeys) make(ctx context.Context, epoch int64) (cipher.AEAD, error) {
	secret := make([]byte, ticketKeySize)
	_, _ = rand.Read(secret) // never fails
	fresh := newTicketAEAD(secret)
	if k.store == nil {
		return fresh, nil
	}
	sealed, err := k.seal.Seal(secret, ticketKeyContext(epoch))
	if err != nil {
		return fresh, fmt.Errorf("seal the ticket key of epoch %d: %w", epoch, err)
	}
	stored, err := k.store.AddTicketKey(ctx, epoch, sealed)
	if err != nil {
		return fresh, fmt.Errorf("%w: add the key of epoch %d: %w", errStore, epoch, err)
	}
	key, err := k.open(epoch, stored)
	if err != nil {
		return fresh, err
	}
	return key, nil
}

func (k *ticketKeys) open(epoch int64, sealed []byte) (cipher.AEAD, error) {
	secret, err := k.seal.Open(sealed, ticketKeyContext(epoch))
	if err != nil {
		return nil, fmt.Errorf("open the ticket key of epoch %d, whose sessions are lost: %w", epoch, err)
	}
	if len(secret) != ticketKeySize {
		return nil, fmt.Errorf("the ticket key of epoch %d has %d bytes instead of %d", epoch, len(secret), ticketKeySize)
	}
	return newTicketAEAD(secret), nil
}

// ticketKeyContext ties a sealed key to its epoch, so that rows of the store cannot be swapped.
func ticketKeyContext(epoch int64) []byte {
	return binary.BigEndian.AppendUint64([]byte("sekisho ticket key\x00"), uint64(epoch))
}

// newTicketAEAD is AES-256-GCM with random nonces: 2^32 tickets under one key are safe, and an hour has fewer.
func newTicketAEAD(secret []byte) cipher.AEAD {
	block, err := aes.NewCipher(secret)
	if err != nil {
		panic("sekisho/edge: " + err.Error())
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic("sekisho/edge: " + err.Error())
	}
	return aead
}
