package admin

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"sekisho/internal/site"
)

// zoneObject is a zone as Cloudflare's clients expect it. What a checkpoint has no counterpart of is empty or null.
type zoneObject struct {
	ID                  string     `json:"id"`
	Name                string     `json:"name"`
	Status              string     `json:"status"`
	Paused              bool       `json:"paused"`
	Type                string     `json:"type"`
	DevelopmentMode     int        `json:"development_mode"`
	NameServers         []string   `json:"name_servers"`
	OriginalNameServers []string   `json:"original_name_servers"`
	OriginalRegistrar   *string    `json:"original_registrar"`
	OriginalDNSHost     *string    `json:"original_dnshost"`
	CreatedOn           *string    `json:"created_on"`
	ModifiedOn          *string    `json:"modified_on"`
	ActivatedOn         *string    `json:"activated_on"`
	Meta                zoneMeta   `json:"meta"`
	Owner               zoneOwner  `json:"owner"`
	Account             accountRef `json:"account"`
	Permissions         []string   `json:"permissions"`
	Plan                zonePlan   `json:"plan"`
}

type zoneMeta struct {
	Step                   int  `json:"step"`
	CustomCertificateQuota int  `json:"custom_certificate_quota"`
	PageRuleQuota          int  `json:"page_rule_quota"`
	PhishingDetected       bool `json:"phishing_detected"`
}

type zoneOwner struct {
	ID    *string `json:"id"`
	Type  string  `json:"type"`
	Email *string `json:"email"`
	Name  string  `json:"name"`
}

type accountRef struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

type zonePlan struct {
	ID                string `json:"id"`
	Name              string `json:"name"`
	Price             int    `json:"price"`
	Currency          string `json:"currency"`
	Frequency         string `json:"frequency"`
	IsSubscribed      bool   `json:"is_subscribed"`
	CanSubscribe      bool   `json:"can_subscribe"`
	LegacyID          string `json:"legacy_id"`
	LegacyDiscount    bool   `json:"legacy_discount"`
	ExternallyManaged bool   `json:"externally_managed"`
}

func (s *server) zoneObject(z site.Zone) zoneObject {
	return zoneObject{
		ID: z.ID, Name: z.Name, Status: "active", Type: "full", NameServers: []string{},
		CreatedOn: stamp(z.CreatedOn), ModifiedOn: stamp(z.CreatedOn), ActivatedOn: stamp(z.CreatedOn),
		Meta:        zoneMeta{Step: 4},
		Owner:       zoneOwner{Type: "organization", Name: s.AccountName},
		Account:     accountRef{ID: z.AccountID, Name: s.AccountName},
		Permissions: []string{"#zone:read", "#ssl:read", "#ssl:edit", "#access:read", "#access:edit"},
		Plan: zonePlan{
			ID: "0feeeeeeeeeeeeeeeeeeeeeeeeeeeeee", Name: "sekisho", Currency: "USD", IsSubscribed: true, LegacyID: "free",
		},
	}
}

// zone finds the zone that the path names.
func (s *server) zone(ctx context.Context, id string) (site.Zone, error) {
	zones, err := s.Records.Zones(ctx)
	if err != nil {
		return site.Zone{}, err
	}
	for _, z := range zones {
		if z.ID == id {
			return z, nil
		}
	}
	return site.Zone{}, refuse(http.StatusNotFound, codeNoZone, "no zone has the id "+id)
}

func (s *server) getZone(ctx context.Context, c *call, _ none) (zoneObject, error) {
	z, err := s.zone(ctx, c.path("zone"))
	if err != nil {
		return zoneObject{}, err
	}
	return s.zoneObject(z), nil
}

func (s *server) listZones(ctx context.Context, c *call, _ none) (list[zoneObject], error) {
	p, err := pageOf(c.query)
	if err != nil {
		return list[zoneObject]{}, err
	}
	matches, err := s.zoneFilter(c)
	if err != nil {
		return list[zoneObject]{}, err
	}
	zones, err := s.Records.Zones(ctx)
	if err != nil {
		return list[zoneObject]{}, err
	}
	var found []zoneObject
	for _, z := range zones {
		if matches(z) {
			found = append(found, s.zoneObject(z))
		}
	}
	slices.SortStableFunc(found, func(a, b zoneObject) int { return cmp.Compare(a.Name, b.Name) })
	switch c.query.Get("direction") {
	case "", "asc":
	case "desc":
		slices.Reverse(found)
	default:
		return list[zoneObject]{}, invalidQuery("direction", "want asc or desc")
	}
	return cut(p, found), nil
}

// zoneFilter reads the filters of the zone list: name, status, account.id, account.name, joined by match.
func (s *server) zoneFilter(c *call) (func(site.Zone) bool, error) {
	var tests []func(site.Zone) bool
	if name := c.query.Get("name"); name != "" {
		name = site.CanonicalName(name)
		tests = append(tests, func(z site.Zone) bool { return z.Name == name })
	}
	if status := c.query.Get("status"); status != "" {
		tests = append(tests, func(site.Zone) bool { return status == "active" })
	}
	if id := c.query.Get("account.id"); id != "" {
		tests = append(tests, func(z site.Zone) bool { return z.AccountID == id })
	}
	if name := c.query.Get("account.name"); name != "" {
		tests = append(tests, func(site.Zone) bool { return strings.EqualFold(name, s.AccountName) })
	}
	anyOf := false
	switch c.query.Get("match") {
	case "", "all":
	case "any":
		anyOf = len(tests) > 0
	default:
		return nil, invalidQuery("match", "want all or any")
	}
	return func(z site.Zone) bool {
		for _, test := range tests {
			if test(z) == anyOf {
				return anyOf
			}
		}
		return !anyOf
	}, nil
}

// accountObject is the one account there is.
type accountObject struct {
	ID        string          `json:"id"`
	Name      string          `json:"name"`
	Type      string          `json:"type"`
	Settings  accountSettings `json:"settings"`
	CreatedOn *string         `json:"created_on"`
}

type accountSettings struct {
	EnforceTwofactor bool `json:"enforce_twofactor"`
}

// account is the account's object; it was created with its first zone.
func (s *server) account(ctx context.Context) (accountObject, error) {
	zones, err := s.Records.Zones(ctx)
	if err != nil {
		return accountObject{}, err
	}
	var first time.Time
	for _, z := range zones {
		if !z.CreatedOn.IsZero() && (first.IsZero() || z.CreatedOn.Before(first)) {
			first = z.CreatedOn
		}
	}
	return accountObject{ID: s.AccountID, Name: s.AccountName, Type: "standard", CreatedOn: stamp(first)}, nil
}

func (s *server) listAccounts(ctx context.Context, c *call, _ none) (list[accountObject], error) {
	p, err := pageOf(c.query)
	if err != nil {
		return list[accountObject]{}, err
	}
	account, err := s.account(ctx)
	if err != nil {
		return list[accountObject]{}, err
	}
	if name := c.query.Get("name"); name != "" && !strings.EqualFold(name, account.Name) {
		return cut(p, []accountObject(nil)), nil
	}
	return cut(p, []accountObject{account}), nil
}

func (s *server) getAccount(ctx context.Context, c *call, _ none) (accountObject, error) {
	if err := s.checkAccount(c.path("account")); err != nil {
		return accountObject{}, err
	}
	return s.account(ctx)
}

// checkAccount refuses an account that is not ours.
func (s *server) checkAccount(id string) error {
	if id != s.AccountID {
		return refuse(http.StatusNotFound, codeNotFound, "no account has the id "+id)
	}
	return nil
}
