package outbound

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// maxAttempts bounds the addresses of a name that are dialled.
const maxAttempts = 4

// dial opens a connection to where a URL leads, if the policy lets it.
func (c *Client) dial(ctx context.Context, u *url.URL, origin Trust) (net.Conn, error) {
	addrs, err := c.resolve(ctx, u, origin)
	if err != nil {
		return nil, err
	}
	var first error
	for i, addr := range addrs {
		conn, err := attempt(ctx, addr, len(addrs)-i)
		if err == nil && u.Scheme == "https" {
			return c.secure(ctx, conn, u)
		}
		if err == nil {
			return conn, nil
		}
		if first == nil {
			first = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, first
}

// attempt dials one address with its share of the time that is left.
func attempt(ctx context.Context, addr netip.AddrPort, left int) (net.Conn, error) {
	deadline, ok := ctx.Deadline()
	if ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(left))
		defer cancel()
	}
	dialer := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: false}}
	return dialer.DialContext(ctx, "tcp", addr.String())
}

// secure makes a TLS connection of it. The server must prove the name of the URL.
func (c *Client) secure(ctx context.Context, conn net.Conn, u *url.URL) (net.Conn, error) {
	name, _, _ := strings.Cut(u.Hostname(), "%")
	secure := tls.Client(conn, &tls.Config{
		ServerName: strings.TrimSuffix(name, "."), RootCAs: c.config.RootCAs, NextProtos: []string{"http/1.1"},
	})
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return secure, nil
}

// resolve is the addresses behind a URL that may be dialled, in the order to try.
func (c *Client) resolve(ctx context.Context, u *url.URL, origin Trust) ([]netip.AddrPort, error) {
	port, err := strconv.ParseUint(portOf(u), 10, 16)
	if err != nil {
		return nil, fmt.Errorf("%w: port %.20q", ErrRequest, u.Port())
	}
	host := u.Hostname()
	addr, err := netip.ParseAddr(host)
	addrs := []netip.Addr{addr}
	if err != nil {
		// The Go resolver: that of the C library would leave a thread behind when ctx ends.
		resolver := net.Resolver{PreferGo: true}
		if addrs, err = resolver.LookupNetIP(ctx, "ip", host); err != nil {
			return nil, err
		}
	}
	var good []netip.AddrPort
	var refusal error
	for _, a := range addrs {
		ap := netip.AddrPortFrom(a.Unmap(), uint16(port))
		if err := c.judge(ap, origin); err != nil {
			refusal = err
			continue
		}
		if len(good) < maxAttempts {
			good = append(good, ap)
		}
	}
	switch {
	case len(good) > 0:
		return good, nil
	case refusal != nil:
		return nil, refusal
	}
	return nil, errors.New("the name has no address")
}
