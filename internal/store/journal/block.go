package journal

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

const (
	headerMagic = "sekisho revocation journal\n"
	version     = 1
	headerSize  = len(headerMagic) + 2 + idSize + 8 + ed25519.PublicKeySize + ed25519.SignatureSize

	blockMagic = "SJb1"
	// prefixSize is what comes before a block's records.
	prefixSize   = len(blockMagic) + 4 + 8 + 4 + sha256.Size + 4
	minBlockSize = prefixSize + ed25519.SignatureSize

	idSize = 16

	// What is signed begins with one of these, which keeps the two apart from each other and from every other signature.
	headerDomain = "sekisho revocation journal header v1\x00"
	blockDomain  = "sekisho revocation journal block v1\x00"
)

// ID names a journal; it is random.
type ID [idSize]byte

// header is what a file begins with.
type header struct {
	id    ID
	epoch uint64
	key   ed25519.PublicKey
}

func (h header) marshal(signer crypto.Signer) ([]byte, error) {
	b := make([]byte, 0, headerSize)
	b = append(b, headerMagic...)
	b = binary.BigEndian.AppendUint16(b, version)
	b = append(b, h.id[:]...)
	b = binary.BigEndian.AppendUint64(b, h.epoch)
	b = append(b, h.key...)
	sig, err := signer.Sign(nil, signed(headerDomain, h.id, b), crypto.Hash(0))
	if err != nil {
		return nil, fmt.Errorf("sign the header: %w", err)
	}
	return append(b, sig...), nil
}

// parseHeader reads a header that key signed.
func parseHeader(b []byte, key ed25519.PublicKey) (h header, err error) {
	if len(b) < len(headerMagic)+2 || string(b[:len(headerMagic)]) != headerMagic {
		return h, fmt.Errorf("%w: it does not begin as a journal does", ErrDamaged)
	}
	rest := b[len(headerMagic):]
	if v := binary.BigEndian.Uint16(rest); v != version {
		return h, fmt.Errorf("%w: its version is %d, this program knows %d", ErrForeign, v, version)
	}
	if len(b) < headerSize {
		return h, fmt.Errorf("%w: the header is cut off", ErrDamaged)
	}
	rest = rest[2:]
	copy(h.id[:], rest)
	h.epoch = binary.BigEndian.Uint64(rest[idSize:])
	h.key = bytes.Clone(rest[idSize+8 : idSize+8+ed25519.PublicKeySize])
	if !h.key.Equal(key) {
		return h, fmt.Errorf("%w: it was signed by the key %x…, ours is %x…", ErrForeign, h.key[:8], key[:8])
	}
	body := b[:headerSize-ed25519.SignatureSize]
	if !ed25519.Verify(key, signed(headerDomain, h.id, body), b[len(body):headerSize]) {
		return h, fmt.Errorf("%w: the signature of the header does not verify", ErrDamaged)
	}
	return h, nil
}

func signed(domain string, id ID, body []byte) []byte {
	b := make([]byte, 0, len(domain)+len(id)+len(body))
	return append(append(append(b, domain...), id[:]...), body...)
}

// Block is one commit.
type Block struct {
	Offset  int64
	First   uint64 // number of its first record
	Records []Record
	Head    Head // the place after it

	prev [sha256.Size]byte
}

// Head is a place in a journal: the end of the block at Offset. The database keeps the one it has got to.
type Head struct {
	ID     ID
	Seq    uint64 // number of the last record
	Offset int64  // of the block
	Hash   [sha256.Size]byte
}

// marshalBlock makes the block that follows head at offset.
func marshalBlock(h header, head Head, offset int64, records []Record, signer crypto.Signer) ([]byte, Head, error) {
	b := make([]byte, 0, minBlockSize+320*len(records))
	b = append(b, blockMagic...)
	b = binary.BigEndian.AppendUint32(b, 0)
	b = binary.BigEndian.AppendUint64(b, head.Seq+1)
	b = binary.BigEndian.AppendUint32(b, uint32(len(records)))
	b = append(b, head.Hash[:]...)
	b = binary.BigEndian.AppendUint32(b, 0)
	var err error
	for i, r := range records {
		if b, err = r.append(b); err != nil {
			return nil, Head{}, err
		}
		if len(b)+ed25519.SignatureSize > MaxBlockBytes {
			return nil, Head{}, fmt.Errorf("%w: %d records, and %d fill a block of %d octets", ErrTooLarge, len(records), i, MaxBlockBytes)
		}
	}
	binary.BigEndian.PutUint32(b[len(blockMagic):], uint32(len(b)+ed25519.SignatureSize))
	binary.BigEndian.PutUint32(b[prefixSize-4:], crc32.ChecksumIEEE(b[:prefixSize-4]))
	sig, err := signer.Sign(nil, signed(blockDomain, h.id, b), crypto.Hash(0))
	if err != nil {
		return nil, Head{}, fmt.Errorf("sign: %w", err)
	}
	b = append(b, sig...)
	return b, Head{ID: h.id, Seq: head.Seq + uint64(len(records)), Offset: offset, Hash: sha256.Sum256(b)}, nil
}

// blockLength reads the length out of a block's first octets. They have a check sum of their own: without it a length that
// was changed to lead behind the end of the file would make everything from there on look like a block half-written.
func blockLength(prefix []byte) (int, error) {
	if string(prefix[:len(blockMagic)]) != blockMagic {
		return 0, fmt.Errorf("%w: no block begins there", ErrDamaged)
	}
	if crc32.ChecksumIEEE(prefix[:prefixSize-4]) != binary.BigEndian.Uint32(prefix[prefixSize-4:]) {
		return 0, fmt.Errorf("%w: the beginning of a block does not have its check sum", ErrDamaged)
	}
	n := binary.BigEndian.Uint32(prefix[len(blockMagic):])
	if n < uint32(minBlockSize) || n > MaxBlockBytes {
		return 0, fmt.Errorf("%w: a block of %d octets; it has %d to %d", ErrDamaged, n, minBlockSize, MaxBlockBytes)
	}
	return int(n), nil
}

// parseBlock reads a whole block, b, and checks its signature. Its place in the chain is for the caller to check.
func parseBlock(h header, b []byte, offset int64) (Block, error) {
	n, err := blockLength(b)
	if err == nil && n != len(b) {
		err = fmt.Errorf("%w: a block of %d octets says that it has %d", ErrDamaged, len(b), n)
	}
	if err != nil {
		return Block{}, err
	}
	body := b[:n-ed25519.SignatureSize]
	if !ed25519.Verify(h.key, signed(blockDomain, h.id, body), b[len(body):]) {
		return Block{}, fmt.Errorf("%w: the signature of a block does not verify", ErrDamaged)
	}
	at := len(blockMagic) + 4
	out := Block{Offset: offset, First: binary.BigEndian.Uint64(body[at:])}
	count := binary.BigEndian.Uint32(body[at+8:])
	copy(out.prev[:], body[at+12:])
	rest := body[prefixSize:]
	if count == 0 || int64(count) > int64(len(rest)) {
		return Block{}, fmt.Errorf("%w: %d records in %d octets", ErrDamaged, count, len(rest))
	}
	out.Records = make([]Record, count)
	for i := range out.Records {
		if out.Records[i], rest, err = parseRecord(rest); err != nil {
			return Block{}, fmt.Errorf("%w: record %d: %w", ErrDamaged, out.First+uint64(i), err)
		}
	}
	if len(rest) > 0 {
		return Block{}, fmt.Errorf("%w: %d octets follow the last record", ErrDamaged, len(rest))
	}
	out.Head = Head{ID: h.id, Seq: out.First + uint64(count) - 1, Offset: offset, Hash: sha256.Sum256(b)}
	return out, nil
}

// follows checks a block's place behind head.
func (b Block) follows(head Head) error {
	switch {
	case b.First != head.Seq+1:
		return fmt.Errorf("%w: record %d follows record %d", ErrDamaged, b.First, head.Seq)
	case b.prev != head.Hash:
		return fmt.Errorf("%w: record %d does not carry the hash of what comes before it", ErrDamaged, b.First)
	}
	return nil
}
