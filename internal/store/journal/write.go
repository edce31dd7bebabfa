package journal

import (
	"errors"
	"fmt"
)

// Pending is a block that is not written yet.
type Pending struct {
	Head Head // where the journal is after it

	raw []byte
}

// Prepare makes the block that follows the head out of at least one record.
func (f *File) Prepare(records []Record) (*Pending, error) {
	raw, head, err := marshalBlock(f.header, f.head, f.end, records, f.cfg.Signer)
	if err != nil {
		return nil, fmt.Errorf("revocation journal: %w", err)
	}
	return &Pending{Head: head, raw: raw}, nil
}

// Write appends the block and syncs the file. The head stays where it is until [File.Keep]. After an error as well as
// after success [File.Undo] takes the block away again.
func (f *File) Write(p *Pending) error {
	f.dirty = true
	if err := f.put(p.raw); err != nil {
		return fmt.Errorf("revocation journal: write %s: %w", f.cfg.Path, err)
	}
	return f.Sync()
}

func (f *File) put(raw []byte) error {
	if err := f.cfg.Fault("journal-write"); err != nil {
		_, half := f.f.WriteAt(raw[:len(raw)/2], f.end)
		return errors.Join(err, half)
	}
	_, err := f.f.WriteAt(raw, f.end)
	return err
}

// Sync brings what was written to the disk.
func (f *File) Sync() error {
	err := f.cfg.Fault("journal-sync")
	if err == nil {
		err = f.f.Sync()
	}
	if err != nil {
		return fmt.Errorf("revocation journal: sync %s: %w", f.cfg.Path, err)
	}
	return nil
}

// Keep moves the head behind the block that Write wrote.
func (f *File) Keep(p *Pending) {
	f.head, f.end, f.dirty = p.Head, p.Head.Offset+int64(len(p.raw)), false
}

// Append writes blocks without syncing, for a journal that is being made.
func (f *File) Append(records []Record) error {
	p, err := f.Prepare(records)
	if err != nil {
		return err
	}
	if err := f.put(p.raw); err != nil {
		return fmt.Errorf("revocation journal: write %s: %w", f.cfg.Path, err)
	}
	f.Keep(p)
	return nil
}

// Undo cuts off what follows the head and syncs.
func (f *File) Undo() error {
	err := f.cfg.Fault("journal-truncate")
	if err == nil {
		err = f.f.Truncate(f.end)
	}
	if err != nil {
		return fmt.Errorf("revocation journal: cut %s at offset %d: %w", f.cfg.Path, f.end, err)
	}
	if err := f.Sync(); err != nil {
		return err
	}
	f.dirty = false
	return nil
}

// Dirty reports whether the file may have more than its head says.
func (f *File) Dirty() bool { return f.dirty }

// Close closes the file.
func (f *File) Close() error { return f.f.Close() }
