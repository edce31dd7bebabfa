package journal

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
)

// Config says where a journal is and who signs it. Both must be set.
type Config struct {
	Path   string
	Signer crypto.Signer // Ed25519

	// Fault, when set, is called before the file is touched, at "journal-write", "journal-sync" and "journal-truncate";
	// what it returns is what happened. At "journal-write" half of the block is written nevertheless. For tests.
	Fault func(point string) error
}

// File is an open journal, positioned at a head. Its methods are for one goroutine.
type File struct {
	cfg    Config
	f      *os.File
	header header
	start  Head  // the place before the first block
	head   Head  // the last block that counts
	end    int64 // where it ends
	dirty  bool  // something may be in the file behind end
}

// Open opens a journal and checks its header, nothing else: [File.Seek] or [File.Blocks] come next. Errors are
// ErrMissing, ErrDamaged and ErrForeign, with the file's name.
func Open(cfg Config) (*File, error) {
	key, err := cfg.check()
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(cfg.Path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ErrMissing, cfg.Path)
	}
	if err != nil {
		return nil, fmt.Errorf("revocation journal: %w", err)
	}
	b := make([]byte, headerSize)
	n, err := io.ReadFull(f, b)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, errors.Join(fmt.Errorf("revocation journal: %w", err), f.Close())
	}
	h, err := parseHeader(b[:n], key)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", cfg.Path, err), f.Close())
	}
	return newFile(cfg, f, h, b), nil
}

// Create makes a journal at a path where nothing is. It is on disk after the first Write.
func Create(cfg Config, epoch uint64) (*File, error) {
	key, err := cfg.check()
	if err != nil {
		return nil, err
	}
	h := header{epoch: epoch, key: key}
	if _, err := rand.Read(h.id[:]); err != nil {
		return nil, fmt.Errorf("revocation journal: %w", err)
	}
	b, err := h.marshal(cfg.Signer)
	if err != nil {
		return nil, fmt.Errorf("revocation journal: %w", err)
	}
	f, err := os.OpenFile(cfg.Path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("revocation journal: %w", err)
	}
	if _, err := f.WriteAt(b, 0); err != nil {
		return nil, errors.Join(fmt.Errorf("revocation journal: %w", err), f.Close())
	}
	return newFile(cfg, f, h, b), nil
}

func (c *Config) check() (ed25519.PublicKey, error) {
	if c.Fault == nil {
		c.Fault = func(string) error { return nil }
	}
	key, ok := c.Signer.Public().(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("revocation journal: its key is a %T; it must be Ed25519", c.Signer.Public())
	}
	return key, nil
}

func newFile(cfg Config, f *os.File, h header, raw []byte) *File {
	start := Head{ID: h.id, Hash: sha256.Sum256(raw)}
	return &File{cfg: cfg, f: f, header: h, start: start, head: start, end: int64(headerSize)}
}

// ID is the journal's name.
func (f *File) ID() ID { return f.header.id }

// Epoch counts the journals of a house.
func (f *File) Epoch() uint64 { return f.header.epoch }

// Head is the last block that counts.
func (f *File) Head() Head { return f.head }

// Seek goes to a head and checks the block there, alone: its hash tells of all blocks before it. Errors are ErrForeign,
// ErrBehind and ErrDamaged.
func (f *File) Seek(head Head) error {
	if head.ID != f.header.id {
		return fmt.Errorf("%s: %w: its id is %x, the database belongs to %x", f.cfg.Path, ErrForeign, f.header.id, head.ID)
	}
	size, err := f.size()
	if err != nil {
		return err
	}
	raw, err := f.read(head.Offset, size)
	if errors.Is(err, ErrTorn) {
		err = fmt.Errorf("%w: it ends at offset %d, the database has record %d at offset %d", ErrBehind, size, head.Seq, head.Offset)
	}
	if err == nil && sha256.Sum256(raw) != head.Hash {
		err = fmt.Errorf("%w: the block at offset %d is not the one that the database has with record %d", ErrDamaged, head.Offset, head.Seq)
	}
	var b Block
	if err == nil {
		b, err = parseBlock(f.header, raw, head.Offset)
	}
	if err == nil && b.Head.Seq != head.Seq {
		err = fmt.Errorf("%w: the block at offset %d ends with record %d, the database says %d", ErrDamaged, head.Offset, b.Head.Seq, head.Seq)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", f.cfg.Path, err)
	}
	f.head, f.end = head, head.Offset+int64(len(raw))
	return nil
}

// Rewind goes to the place before the first block.
func (f *File) Rewind() { f.head, f.end = f.start, int64(headerSize) }

// Pending reports how many octets follow the head.
func (f *File) Pending() (int64, error) {
	size, err := f.size()
	return size - f.end, err
}

func (f *File) size() (int64, error) {
	info, err := f.f.Stat()
	if err != nil {
		return 0, fmt.Errorf("revocation journal: %w", err)
	}
	return info.Size(), nil
}

// Blocks yields the blocks behind the head and moves the head along. An error ends it: ErrTorn, with the head at the
// last whole block, when the file ends in one that a crash left half-written, and otherwise ErrDamaged.
func (f *File) Blocks() iter.Seq2[Block, error] {
	return func(yield func(Block, error) bool) {
		size, err := f.size()
		for err == nil && f.end < size {
			var b Block
			if b, err = f.next(size); err == nil && !yield(b, nil) {
				return
			}
		}
		if err != nil {
			yield(Block{}, fmt.Errorf("%s: offset %d, behind record %d: %w", f.cfg.Path, f.end, f.head.Seq, err))
		}
	}
}

func (f *File) next(size int64) (Block, error) {
	raw, err := f.read(f.end, size)
	if err != nil {
		return Block{}, err
	}
	b, err := parseBlock(f.header, raw, f.end)
	if err == nil {
		err = b.follows(f.head)
	}
	if err != nil {
		if f.end+int64(len(raw)) == size && unwritten(raw, f.end) {
			err = fmt.Errorf("%w: a part of it was never written", ErrTorn)
		}
		return Block{}, err
	}
	f.head, f.end = b.Head, f.end+int64(len(raw))
	return b, nil
}

// read returns the octets of the block at offset; ErrTorn when the file ends before the block.
func (f *File) read(offset, size int64) ([]byte, error) {
	if offset < int64(headerSize) {
		return nil, fmt.Errorf("%w: no block begins at offset %d", ErrDamaged, offset)
	}
	if size-offset < int64(minBlockSize) {
		return nil, f.short(offset, size)
	}
	prefix := make([]byte, prefixSize)
	if _, err := f.f.ReadAt(prefix, offset); err != nil {
		return nil, fmt.Errorf("revocation journal: %w", err)
	}
	n, err := blockLength(prefix)
	switch {
	case err != nil:
		return nil, f.garbled(offset, size, err)
	case size-offset < int64(n):
		return nil, fmt.Errorf("%w: %d octets of %d are there", ErrTorn, size-offset, n)
	}
	raw := make([]byte, n)
	if _, err := f.f.ReadAt(raw, offset); err != nil {
		return nil, fmt.Errorf("revocation journal: %w", err)
	}
	return raw, nil
}

// short judges an end that is too short for any block: the beginning of one, or octets that were never written, are what
// a crash leaves.
func (f *File) short(offset, size int64) error {
	rest := make([]byte, max(size-offset, 0))
	if _, err := f.f.ReadAt(rest, offset); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("revocation journal: %w", err)
	}
	n := min(len(rest), len(blockMagic))
	if string(rest[:n]) != blockMagic[:n] && !allZero(rest) {
		return fmt.Errorf("%w: no block begins there", ErrDamaged)
	}
	return fmt.Errorf("%w: %d octets are there", ErrTorn, len(rest))
}

// garbled judges a block whose beginning does not verify: when nothing but one block could be there and a part of it was
// never written, a crash has left it. A whole block somewhere behind it was written later, so this one was on the disk.
func (f *File) garbled(offset, size int64, err error) error {
	if size-offset > MaxBlockBytes {
		return err
	}
	rest := make([]byte, size-offset)
	if _, err := f.f.ReadAt(rest, offset); err != nil {
		return fmt.Errorf("revocation journal: %w", err)
	}
	if !unwritten(rest, offset) || f.hasBlock(rest, offset) {
		return err
	}
	return fmt.Errorf("%w: a part of it was never written", ErrTorn)
}

// hasBlock reports whether a block that verifies begins anywhere in b, which is what the file has at offset.
func (f *File) hasBlock(b []byte, offset int64) bool {
	for at := 0; len(b)-at >= minBlockSize; at++ {
		next := bytes.Index(b[at:len(b)-minBlockSize+len(blockMagic)], []byte(blockMagic))
		if next < 0 {
			return false
		}
		at += next
		n, err := blockLength(b[at:])
		if err != nil || n > len(b)-at {
			continue
		}
		if _, err := parseBlock(f.header, b[at:at+n], offset+int64(at)); err == nil {
			return true
		}
	}
	return false
}

// sector is what a disk writes or does not write as one.
const sector = 512

// unwritten reports whether a whole sector of a block at offset is zero. No block has that in it, but a file has it whose
// length reached the disk before its content did.
func unwritten(raw []byte, offset int64) bool {
	at := int((sector - offset%sector) % sector)
	for ; at+sector <= len(raw); at += sector {
		if allZero(raw[at : at+sector]) {
			return true
		}
	}
	return at < len(raw) && len(raw)-at > 16 && allZero(raw[at:]) || allZero(raw)
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
