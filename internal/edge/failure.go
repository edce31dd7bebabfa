package edge

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"sekisho/internal/identity"
)

// reasonUnproven labels a client that presented a certificate and did not hold its key.
const reasonUnproven = "unproven"

// refusal names the reason when a handshake failed because of the client's certificate, else "". crypto/tls has no
// types for these errors, so their text is compared; the tests break when it changes.
func (hs *handshake) refusal(err error) string {
	text := err.Error()
	switch {
	case hs.refused:
		return string(hs.identity.Reason())
	case strings.Contains(text, "client didn't provide a certificate"):
		return string(identity.NoCertificate)
	case strings.Contains(text, "failed to parse client certificate"),
		strings.Contains(text, "client certificate contains an unsupported public key"),
		strings.Contains(text, "client sent certificate containing RSA key larger"):
		return string(identity.Malformed)
	case strings.Contains(text, "invalid signature by the client certificate"):
		return reasonUnproven
	}
	return ""
}

// failureOf puts what went wrong in a handshake under one of a few labels.
func failureOf(hs *handshake, err error) string {
	var notTLS interface{ Timeout() bool }
	switch {
	case hs.snapshot != nil && hs.host == nil:
		return "unknown_host"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &notTLS) && notTLS.Timeout():
		return "timeout"
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), strings.Contains(err.Error(), "connection reset"):
		return "closed"
	case strings.Contains(err.Error(), "first record does not look like a TLS handshake"):
		return "not_tls"
	}
	return "protocol"
}

// looksLikeHTTP reports whether the first five bytes begin an HTTP/1 request or the HTTP/2 preface.
func looksLikeHTTP(first [5]byte) bool {
	switch string(first[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "DELET", "PATCH", "TRACE", "CONNE", "PRI *":
		return true
	}
	return false
}

// answerPlainHTTP tells a client that speaks HTTP without TLS what is wrong.
func answerPlainHTTP(raw *socket) {
	const body = "Client sent an HTTP request to an HTTPS server.\n"
	_ = raw.SetWriteDeadline(time.Now().Add(time.Second)) // best effort from here on: the client is leaving anyway
	_, _ = io.WriteString(raw, "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"+
		"Content-Length: 48\r\nConnection: close\r\n\r\n"+body)
	linger(raw, time.Second)
}

// linger ends what we send and reads, for a moment, what the client still sends: closing with unread bytes resets the
// connection, and a client whose request is on its way would see that instead of the alert or answer that says why.
func linger(raw *socket, limit time.Duration) {
	_ = raw.SetDeadline(time.Now().Add(limit)) // best effort: the client is leaving anyway
	_ = raw.CloseWrite()
	_, _ = io.CopyN(io.Discard, raw, 64<<10)
}
