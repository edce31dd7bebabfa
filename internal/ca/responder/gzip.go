package responder

import (
	"bytes"
	"compress/gzip"
	"strconv"
	"strings"
	"sync"
	"time"

	"sekisho/internal/ca"
)

const (
	gzipFrom     = 1 << 10  // octets; below, headers cost as much as is saved
	gzipKept     = 64 << 20 // octets of all compressed lists together
	gzipListsMax = 4096
)

// gzipCache has the compressed form of the lists that were asked for, each made once. One is made at a time, and no more
// than a quarter of the time goes into it: who asks meanwhile gets the list as it is.
type gzipCache struct {
	mu    sync.Mutex
	lists map[place]gzipped
	size  int
	busy  bool
	next  time.Time // not before
}

// place is where a list is published.
type place struct {
	ca    string
	shard int
	delta bool
}

// gzipped is a compressed list; nil: compressed, it is no smaller.
type gzipped struct {
	etag string
	body []byte
}

func newGzipCache() *gzipCache { return &gzipCache{lists: map[place]gzipped{}} }

// of is the compressed form of the list; nil when there is none to be had now.
func (g *gzipCache) of(crl ca.CRL) []byte {
	at := place{crl.CAID, crl.Shard, crl.Base != nil}
	if len(crl.DER) < gzipFrom || len(crl.DER) > gzipKept {
		return nil
	}
	g.mu.Lock()
	known, ok := g.lists[at]
	if ok && known.etag == crl.ETag {
		defer g.mu.Unlock()
		return known.body
	}
	if g.busy || time.Now().Before(g.next) {
		defer g.mu.Unlock()
		return nil
	}
	g.busy = true
	g.mu.Unlock()
	start := time.Now()
	body := compress(crl.DER)
	took := time.Since(start)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.busy = false
	if took > time.Millisecond { // a small one makes nobody wait
		g.next = time.Now().Add(3 * took)
	}
	g.keep(at, gzipped{crl.ETag, body})
	return body
}

// keep remembers a list in place of the one before it at the place, and forgets others when they are too many.
func (g *gzipCache) keep(at place, z gzipped) {
	g.size += len(z.body) - len(g.lists[at].body)
	g.lists[at] = z
	for other, o := range g.lists {
		if g.size <= gzipKept && len(g.lists) <= gzipListsMax {
			return
		}
		if other != at {
			g.size -= len(o.body)
			delete(g.lists, other)
		}
	}
}

// compress is data in gzip; nil when that is no smaller. Serial numbers are random: more effort gains next to nothing.
func compress(data []byte) []byte {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil || out.Len() >= len(data) {
		return nil
	}
	return bytes.Clone(out.Bytes()) // without the room that the buffer has left
}

// gzipTag is the entity tag of the compressed form of what tag stands for.
func gzipTag(tag string) string { return strings.TrimSuffix(tag, `"`) + `-gzip"` }

// acceptsGzip reads Accept-Encoding (RFC 9110, Section 12.5.3): gzip is named, or meant by *, with a weight above 0 that is
// not below the one of identity, if that is named too.
func acceptsGzip(headers []string) bool {
	weights := map[string]float64{}
	for _, header := range headers {
		for element := range strings.SplitSeq(header, ",") {
			coding, parameters, _ := strings.Cut(element, ";")
			if coding = strings.ToLower(strings.TrimSpace(coding)); coding != "" {
				weights[strings.TrimPrefix(coding, "x-")] = weight(parameters) // Section 8.4.1.3: x-gzip is gzip
			}
		}
	}
	q, named := weights["gzip"]
	if !named {
		q = weights["*"]
	}
	return q > 0 && q >= weights["identity"]
}

// weight is the q-value of the parameters; 1 when there is none, 0 when it is none of the form.
func weight(parameters string) float64 {
	name, value, ok := strings.Cut(strings.TrimSpace(parameters), "=")
	if !ok && name == "" {
		return 1
	}
	q, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
	if !ok || !strings.EqualFold(strings.TrimSpace(name), "q") || err != nil || !(q >= 0 && q <= 1) {
		return 0
	}
	return q
}
