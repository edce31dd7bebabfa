// Package outbound is the one guarded HTTP client. What makes Sekisho fetch is
// often somebody else's word: a certificate that a stranger presents names the
// URLs of its CRL and OCSP responder. So every request has an address policy,
// a deadline, a size and a share of the connections.
//
// The address policy is judged on the IP address that is dialled, after the
// name was resolved and again for every redirect; the address that was judged is
// the one that is dialled, so a name that resolves anew to something else gains
// nothing. IPv4 addresses inside IPv6 ones (mapped, compatible, 6to4, NAT64,
// Teredo) are judged as what they lead to. [Config.Deny] and our own listeners come first, then
// [Config.Allow], then the defaults for the request's [Trust]. An address that the world
// translates to ours (NAT) is not known here to be ours: name it in Deny.
//
// It refuses: schemes other than http and https, user names in URLs, addresses
// against the policy, a redirect in a circle or one too many, one that would turn
// a POST into a GET, statuses other than 200 and an asked-for 304, a
// compressed body (none is asked for), and more octets than the request
// allows. It sends no cookies and no credentials, and reads no proxy settings
// from the environment. It speaks HTTP/1.1, one connection for each request and
// redirect, and starts no goroutine that outlives the request.
//
// The cost of one request is bounded. With the defaults it takes at most 10
// seconds from Do to the last octet of the body, waiting for its turn included;
// 4 exchanges (the request and 3 redirects), one after another, each of at most
// one name resolution, 4 connection attempts, one TLS handshake, 32 KiB sent
// besides the caller's body, 64 KiB of response header and one open socket; and,
// of the last exchange alone, MaxBytes of body, which pass through a buffer of
// 4 KiB. Bodies of redirects and refusals are not read. At any time at most 32
// exchanges are under way, 24 of them for certificates, and 4 with one host; the
// others wait, and cost their caller's goroutine and nothing else.
//
// Example:
//
//	client := outbound.New(outbound.Config{UserAgent: "sekisho", Self: listeners.Addrs})
//	defer client.Close()
//	resp, err := client.Do(ctx, outbound.Request{URL: url, ETag: last, MaxBytes: 64 << 20})
//	if err != nil {
//		return err // errors.Is(err, outbound.ErrAddress), ...
//	}
//	defer resp.Body.Close()
package outbound
