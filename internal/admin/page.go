package admin

import (
	"net/url"
	"strconv"
)

// The bounds of a page. Cloudflare's own default for client certificates is smaller; ours is the number of
// certificates that a zone may have there, so that a script that never asks for page 2 sees as much as it did.
const (
	defaultPerPage = 100
	maxPerPage     = 1000
	maxSkip        = 1_000_000_000 // keeps every product below an int64
)

// page is the part of a list that a request asks for. Both spellings are understood, also together: page N of
// per_page (or limit) items, counted from offset. So a pager that only ever raises page comes to an end.
type page struct {
	number int // 1, 2, 3, ...
	size   int // 1 to 1000
	offset int // items to leave out before page 1
}

// pageOf reads page, per_page, limit and offset. A size above the greatest is cut to it; result_info tells.
func pageOf(q url.Values) (page, error) {
	p := page{number: 1, size: defaultPerPage}
	for _, field := range []struct {
		name  string
		least int
		to    *int
	}{{"limit", 1, &p.size}, {"per_page", 1, &p.size}, {"page", 1, &p.number}, {"offset", 0, &p.offset}} {
		text := q.Get(field.name)
		if text == "" {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < field.least || n > maxSkip {
			return page{}, invalidQuery(field.name, "want a whole number, at least "+strconv.Itoa(field.least))
		}
		*field.to = n
	}
	p.size = min(p.size, maxPerPage)
	return p, nil
}

// skip is how many items come before the page.
func (p page) skip() int {
	return int(min(int64(p.offset)+int64(p.number-1)*int64(p.size), maxSkip))
}

// info describes the page of count items of a list of total.
func (p page) info(count, total int) *resultInfo {
	return &resultInfo{
		Page: p.number + p.offset/p.size, PerPage: p.size, Count: count,
		TotalCount: total, TotalPages: (total + p.size - 1) / p.size,
	}
}

// cut returns the page of a list that is all in memory.
func cut[T any](p page, all []T) list[T] {
	from := min(p.skip(), len(all))
	to := min(from+p.size, len(all))
	return list[T]{items: all[from:to], info: p.info(to-from, len(all))}
}
