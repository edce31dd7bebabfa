package ca

import (
	"errors"
	"fmt"
)

var (
	// ErrInvalid says that what was asked for cannot be done as asked. Every one is a [*RequestError], which says what is wrong.
	ErrInvalid = errors.New("invalid request")
	// ErrNotReady says that there is no issuing CA yet; [Authority.Init] makes one.
	ErrNotReady = errors.New("there is no certificate authority yet; make one with sekisho ca init")
)

// RequestError says which field of a request is wrong, and why. It is [ErrInvalid].
type RequestError struct {
	Field   string // csr, public_key, subject, hosts, profile, validity_days, reason, key_type
	Message string // for people; lower case, says what to do where that is not plain
}

// Error is the field and the message.
func (e *RequestError) Error() string { return e.Field + ": " + e.Message }

// Unwrap is ErrInvalid.
func (e *RequestError) Unwrap() error { return ErrInvalid }

// invalid makes a RequestError.
func invalid(field, format string, args ...any) error {
	return &RequestError{Field: field, Message: fmt.Sprintf(format, args...)}
}
