package admin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sekisho/internal/auditlog"
	"sekisho/internal/site"
)

var errNoHostname = errors.New("is no host name")

// settingsRequest is the body of the PUT: the settings of some hostnames; those of others stay as they are.
type settingsRequest struct {
	Settings []settingObject `json:"settings"`
}

// settingObject is the switches of one hostname. Absent ones are false.
type settingObject struct {
	Hostname                    string `json:"hostname"`
	ChinaNetwork                bool   `json:"china_network"`
	ClientCertificateForwarding bool   `json:"client_certificate_forwarding"`
}

// settingsZones returns the zones that a call speaks of: that of the path, or all of the account's.
func (s *server) settingsZones(ctx context.Context, c *call) ([]site.Zone, error) {
	if id := c.path("zone"); id != "" {
		z, err := s.zone(ctx, id)
		return []site.Zone{z}, err
	}
	if err := s.checkAccount(c.path("account")); err != nil {
		return nil, err
	}
	return s.Records.Zones(ctx)
}

func (s *server) getSettings(ctx context.Context, c *call, _ none) ([]settingObject, error) {
	zones, err := s.settingsZones(ctx, c)
	if err != nil {
		return nil, err
	}
	all, err := s.Records.AllSettings(ctx)
	if err != nil {
		return nil, err
	}
	objects := []settingObject{}
	for _, one := range all {
		if slices.ContainsFunc(zones, func(z site.Zone) bool { return z.ID == one.ZoneID }) {
			objects = append(objects, settingObject{one.Hostname, one.ChinaNetwork, one.ClientCertificateForwarding})
		}
	}
	slices.SortFunc(objects, func(a, b settingObject) int { return strings.Compare(a.Hostname, b.Hostname) })
	return objects, nil
}

// putSettings answers with the settings that were sent, in their order, as Cloudflare's clients compare them.
func (s *server) putSettings(ctx context.Context, c *call, req settingsRequest) ([]settingObject, error) {
	zones, err := s.settingsZones(ctx, c)
	if err != nil {
		return nil, err
	}
	if req.Settings == nil {
		return nil, invalid("/settings", `settings: give a list, {"settings":[{"hostname":"…","client_certificate_forwarding":true}]}`)
	}
	if len(req.Settings) > maxHostnames {
		return nil, invalid("/settings", fmt.Sprintf("settings: %d are too many: give at most %d at once", len(req.Settings), maxHostnames))
	}
	byZone := make(map[string][]site.Settings)
	seen := make(map[string]bool)
	answer := []settingObject{}
	for i, one := range req.Settings {
		pointer := fmt.Sprintf("/settings/%d/hostname", i)
		zone, name, err := s.zoneOf(zones, one.Hostname)
		if err != nil {
			foreign := invalid(pointer, "access.api.error.hostnames_must_belong_to_your_domain: "+err.Error())
			foreign.problems[0].Code = codeForeignHostname
			return nil, foreign
		}
		if seen[name] {
			return nil, invalid(pointer, "hostname: "+name+" is there twice")
		}
		seen[name] = true
		byZone[zone.ID] = append(byZone[zone.ID], site.Settings{
			ZoneID: zone.ID, Hostname: name,
			ChinaNetwork: one.ChinaNetwork, ClientCertificateForwarding: one.ClientCertificateForwarding,
		})
		one.Hostname = name
		answer = append(answer, one)
	}
	return answer, s.storeSettings(ctx, c, zones, byZone)
}

// storeSettings stores settings zone by zone and puts into force what was stored, also when a later zone fails.
func (s *server) storeSettings(ctx context.Context, c *call, zones []site.Zone, byZone map[string][]site.Settings) error {
	stored := false
	for _, z := range zones {
		settings := byZone[z.ID]
		if len(settings) == 0 {
			continue
		}
		if err := s.Records.PutSettings(ctx, z.ID, settings, s.settingsEntry(c, z, settings)); err != nil {
			if stored {
				err = errors.Join(err, s.putIntoForce(ctx))
			}
			return fmt.Errorf("settings of the zone %s: %w", z.Name, err)
		}
		stored = true
	}
	return s.putIntoForce(ctx)
}

func (s *server) settingsEntry(c *call, z site.Zone, settings []site.Settings) auditlog.Entry {
	texts := make([]string, len(settings))
	for i, one := range settings {
		texts[i] = fmt.Sprintf("%s client_certificate_forwarding=%t china_network=%t",
			one.Hostname, one.ClientCertificateForwarding, one.ChinaNetwork)
	}
	return auditlog.Entry{
		At: s.Now().UTC(), Actor: c.caller.Name, Action: "access_settings.put", Object: z.ID, Outcome: "done",
		Detail: map[string]string{"settings": clip(strings.Join(texts, "; "), 2000)},
	}
}

// zoneOf finds the zone of a hostname among some: the one with the longest domain, if several have it.
func (s *server) zoneOf(zones []site.Zone, hostname string) (site.Zone, string, error) {
	var best site.Zone
	var name string
	err := fmt.Errorf("%q is of no zone here", clip(hostname, 100))
	found := false
	for _, z := range zones {
		n, zoneErr := s.hostnameOf(z, hostname)
		if zoneErr != nil {
			if len(zones) == 1 {
				err = zoneErr
			}
			continue
		}
		if !found || len(z.Name) > len(best.Name) {
			best, name, found = z, n, true
		}
	}
	if !found {
		return best, "", err
	}
	return best, name, nil
}
