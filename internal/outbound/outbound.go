package outbound

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Defaults and bounds.
const (
	defaultTimeout   = 10 * time.Second
	defaultRedirects = 3
	defaultMaxBytes  = 1 << 20
	maxURL           = 4096
	maxHeaderBytes   = 64 << 10 // of one response, interim responses included
	maxValidator     = 1024     // of an ETag or Last-Modified that is kept or sent
	maxRetryAfter    = 365 * 24 * time.Hour
)

// Config is how a client behaves.
type Config struct {
	Allow        []netip.Prefix          // addresses that the defaults would refuse
	Deny         []netip.Prefix          // addresses that are refused whoever named them, even where Allow has them
	Self         func() []netip.AddrPort // our own listeners, refused as a loop; an unspecified address is every one of this machine. nil: none
	Timeout      time.Duration           // of a request as a whole; default 10 s
	MaxRedirects int                     // default 3; negative: none
	UserAgent    string                  // default "sekisho"
	RootCAs      *x509.CertPool          // that vouch for https servers; nil: the system's
}

// Client makes requests. It is safe for concurrent use.
type Client struct {
	config   Config
	slots    *slots
	counters counters

	mu     sync.Mutex
	closed bool
	active map[*context.CancelFunc]struct{} // the requests under way, until their bodies are closed
}

// New is a client. It opens nothing.
func New(config Config) *Client {
	config.Allow, config.Deny = unmapPrefixes(config.Allow), unmapPrefixes(config.Deny)
	if config.Timeout <= 0 {
		config.Timeout = defaultTimeout
	}
	switch {
	case config.MaxRedirects == 0:
		config.MaxRedirects = defaultRedirects
	case config.MaxRedirects < 0:
		config.MaxRedirects = 0
	}
	if config.UserAgent == "" {
		config.UserAgent = "sekisho"
	}
	return &Client{config: config, slots: newSlots(), active: map[*context.CancelFunc]struct{}{}}
}

// Close breaks off what is under way and refuses what comes after.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for cancel := range c.active {
		(*cancel)()
	}
}

// Trust says who named the address of a request.
type Trust int

const (
	// FromCertificate means that a certificate named it, so a stranger may have. Refused
	// are loopback, link-local, multicast, unspecified and reserved addresses,
	// the metadata services of clouds and our own listeners. Private addresses
	// (RFC 1918) pass: a company's CA has its CRLs there.
	FromCertificate Trust = iota
	// FromOperator means that the operator wrote it down. Refused are multicast and
	// unspecified addresses and our own listeners. A redirect to another server is
	// FromCertificate from there on.
	FromOperator
)

// Request is what to fetch.
type Request struct {
	Method      string // GET (default) or POST
	URL         string
	Body        []byte // of a POST
	ContentType string // of Body
	Accept      string
	// ETag and LastModified are those of the copy that the caller has: an
	// unchanged resource is answered with NotModified.
	ETag, LastModified string
	MaxBytes           int64         // of the body; default 1 MiB
	Timeout            time.Duration // default that of the client
	Origin             Trust
}

// Response is the answer, of status 200 or 304.
type Response struct {
	Status       int
	NotModified  bool
	ETag         string
	LastModified string
	// Body must be closed. Reading past MaxBytes is ErrTooLarge, past the
	// deadline ErrTimeout; a body that ends early is an error too.
	Body io.ReadCloser
}

// Errors of Do and of reading the body.
var (
	ErrRequest  = errors.New("not a request that can be sent")
	ErrAddress  = errors.New("address refused by policy")
	ErrTooLarge = errors.New("response too large")
	ErrTimeout  = errors.New("timeout")
	ErrRedirect = errors.New("redirect refused")
	ErrStatus   = errors.New("unexpected HTTP status") // every StatusError is it
	ErrClosed   = errors.New("client is closed")
)

// StatusError is an answer with another status than was asked for.
type StatusError struct {
	Code       int
	RetryAfter time.Duration // that the server asks for in seconds, at most a year; 0: none
}

// Error names the status.
func (e *StatusError) Error() string {
	return strings.TrimSpace(fmt.Sprintf("%s %d %s", ErrStatus, e.Code, http.StatusText(e.Code)))
}

// Unwrap makes it an ErrStatus.
func (e *StatusError) Unwrap() error { return ErrStatus }

// Do fetches. The deadline, and a cancellation of ctx, also end the reading of
// the body. Errors name the URL that was asked for.
func (c *Client) Do(ctx context.Context, req Request) (*Response, error) {
	resp, err := c.do(ctx, req)
	if err != nil {
		c.counters.add(err)
		return nil, fmt.Errorf("%.200s: %w", req.URL, err)
	}
	return resp, nil
}

func (c *Client) do(ctx context.Context, req Request) (*Response, error) {
	u, err := prepare(&req)
	if err != nil {
		return nil, err
	}
	if req.Timeout <= 0 {
		req.Timeout = c.config.Timeout
	}
	ctx, cancel := context.WithTimeout(ctx, req.Timeout)
	finish, err := c.begin(cancel)
	if err != nil {
		cancel()
		return nil, err
	}
	x, err := c.follow(ctx, u, req)
	if err != nil {
		err = c.explain(ctx, err)
		finish()
		return nil, err
	}
	x.explain = func(err error) error { return c.explain(ctx, err) }
	x.finish = func(reason error) {
		finish()
		c.counters.add(reason)
	}
	resp := x.answer(req)
	// A caller that forgets to close the body holds its slot no longer than the deadline.
	context.AfterFunc(ctx, func() {
		reason := c.explain(ctx, ctx.Err())
		x.end(reason, reason)
	})
	return resp, nil
}

// prepare checks a request and fills in its defaults.
func prepare(req *Request) (*url.URL, error) {
	switch {
	case req.Method == "":
		req.Method = http.MethodGet
	case req.Method != http.MethodGet && req.Method != http.MethodPost:
		return nil, fmt.Errorf("%w: method %.20q; use GET or POST", ErrRequest, req.Method)
	}
	if req.Method == http.MethodGet && len(req.Body) > 0 {
		return nil, fmt.Errorf("%w: a GET with a body", ErrRequest)
	}
	if req.MaxBytes <= 0 {
		req.MaxBytes = defaultMaxBytes
	}
	u, err := parseURL(req.URL)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	return u, nil
}

// parseURL reads an absolute http or https URL without user name.
func parseURL(text string) (*url.URL, error) {
	if len(text) > maxURL {
		return nil, fmt.Errorf("URL of %d characters; at most %d", len(text), maxURL)
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, errors.New("not a URL")
	}
	return u, checkURL(u)
}

func checkURL(u *url.URL) error {
	port, err := strconv.ParseUint(portOf(u), 10, 16)
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("scheme %.20q; use http or https", u.Scheme)
	case u.Opaque != "" || u.Hostname() == "":
		return errors.New("URL without a host")
	case u.User != nil:
		return errors.New("URL with a user name")
	case err != nil || port == 0:
		return fmt.Errorf("port %.20q", u.Port())
	case len(u.String()) > maxURL:
		return fmt.Errorf("URL of more than %d characters", maxURL)
	}
	return nil
}

// portOf is a URL's port, written out or implied.
func portOf(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case u.Scheme == "https":
		return "443"
	}
	return "80"
}

// begin counts a request as under way until finish.
func (c *Client) begin(cancel context.CancelFunc) (finish func(), err error) {
	key := &cancel
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	c.active[key] = struct{}{}
	return func() {
		cancel()
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.active, key)
	}, nil
}

// explain replaces what a broken-off connection says by the reason it was
// broken off for.
func (c *Client) explain(ctx context.Context, err error) error {
	var slow net.Error
	switch reason := ctx.Err(); {
	case errors.Is(reason, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", ErrTimeout, reason)
	case reason == nil && errors.As(err, &slow) && slow.Timeout(): // of one address, or the resolver
		return fmt.Errorf("%w: %w", ErrTimeout, err)
	case reason == nil:
		return err
	case c.isClosed():
		return ErrClosed
	default:
		return reason
	}
}

func (c *Client) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// follow makes the exchanges of a request until one is not redirected.
func (c *Client) follow(ctx context.Context, u *url.URL, req Request) (*exchange, error) {
	seen := map[string]bool{}
	for {
		u.Fragment, u.RawFragment = "", ""
		if seen[u.String()] {
			return nil, fmt.Errorf("%w: in a circle to %.200s", ErrRedirect, u)
		}
		seen[u.String()] = true
		x, err := c.exchange(ctx, u, req)
		if err != nil {
			return nil, at(u, len(seen), err)
		}
		next, err := redirected(x.resp, u, req.Method)
		if next == nil && err == nil {
			err = x.check(req)
		}
		if next == nil && err == nil {
			return x, nil
		}
		x.close()
		switch {
		case err != nil:
			return nil, at(u, len(seen), err)
		case len(seen) > c.config.MaxRedirects:
			return nil, fmt.Errorf("%w: more than %d, the last to %.200s", ErrRedirect, c.config.MaxRedirects, next)
		}
		if !sameServer(u, next) {
			req.Origin = FromCertificate // the operator wrote down where to ask, not where that leads
		}
		u = next
	}
}

// sameServer reports whether a redirect stays where it was, or goes on to the standard port of https there.
func sameServer(from, to *url.URL) bool {
	return strings.EqualFold(from.Hostname(), to.Hostname()) && (portOf(from) == portOf(to) || to.Scheme == "https" && portOf(to) == "443")
}

// at says where redirects led to before the error.
func at(u *url.URL, hop int, err error) error {
	if hop == 1 {
		return err
	}
	return fmt.Errorf("redirected to %.200s: %w", u, err)
}

// redirected is where a response redirects to, nil if it does not.
func redirected(resp *http.Response, from *url.URL, method string) (*url.URL, error) {
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther:
		if method != http.MethodGet { // RFC 9110, Section 15.4: clients change these to GET, and the body is lost
			return nil, fmt.Errorf("%w: status %d would turn the POST into a GET", ErrRedirect, resp.StatusCode)
		}
	case http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	default:
		return nil, nil
	}
	location := resp.Header.Get("Location")
	if location == "" || len(location) > maxURL {
		return nil, fmt.Errorf("%w: Location is missing or longer than %d characters", ErrRedirect, maxURL)
	}
	next, err := from.Parse(location)
	if err != nil {
		return nil, fmt.Errorf("%w: Location is not a URL", ErrRedirect)
	}
	if err := checkURL(next); err != nil {
		return nil, fmt.Errorf("%w: Location: %w", ErrRedirect, err)
	}
	if from.Scheme == "https" && next.Scheme == "http" {
		return nil, fmt.Errorf("%w: from https to http", ErrRedirect)
	}
	return next, nil
}

// message is the HTTP request of an exchange.
func (c *Client) message(ctx context.Context, u *url.URL, req Request) (*http.Request, error) {
	msg, err := http.NewRequestWithContext(ctx, req.Method, u.String(), bytes.NewReader(req.Body))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	msg.Close = true
	msg.Header.Set("User-Agent", c.config.UserAgent)
	msg.Header.Set("Accept-Encoding", "identity") // RFC 9110, Section 12.5.3: without it, every encoding would do
	for name, value := range map[string]string{
		"Content-Type": req.ContentType, "Accept": req.Accept,
		"If-None-Match": req.ETag, "If-Modified-Since": req.LastModified,
	} {
		if value != "" && len(value) <= maxValidator {
			msg.Header.Set(name, value)
		}
	}
	return msg, nil
}
