package admin

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"sekisho/internal/auditlog"
	"sekisho/internal/principal"
)

// tokenStatus is Cloudflare's answer to user/tokens/verify.
type tokenStatus struct {
	ID        string  `json:"id"`
	Status    string  `json:"status"`
	NotBefore *string `json:"not_before"`
	ExpiresOn *string `json:"expires_on"`
}

func (s *server) verifyToken(_ context.Context, c *call, _ none) (noted, error) {
	t := c.caller.Token
	return noted{
		result:   tokenStatus{ID: t.ID, Status: "active", NotBefore: stamp(t.CreatedOn), ExpiresOn: stamp(t.ExpiresOn)},
		messages: []message{{Code: 10000, Message: "This API Token is valid and active"}},
	}, nil
}

// tokenObject is a token without its secret, which nobody but its owner has.
type tokenObject struct {
	ID        string  `json:"id"`
	Name      string  `json:"name"`
	Email     string  `json:"email"`
	Role      string  `json:"role"`
	CreatedOn *string `json:"created_on"`
	ExpiresOn *string `json:"expires_on"` // null: never
	Value     string  `json:"value,omitempty"`
}

func newTokenObject(t principal.Token) tokenObject {
	return tokenObject{
		ID: t.ID, Name: t.Name, Email: t.Email, Role: string(t.Role), CreatedOn: stamp(t.CreatedOn), ExpiresOn: stamp(t.ExpiresOn),
	}
}

func (s *server) listTokens(ctx context.Context, c *call, _ none) (list[tokenObject], error) {
	if s.Tokens == nil {
		return list[tokenObject]{}, noRoute(c.url)
	}
	p, err := pageOf(c.query)
	if err != nil {
		return list[tokenObject]{}, err
	}
	tokens, err := s.Tokens.ListTokens(ctx)
	if err != nil {
		return list[tokenObject]{}, err
	}
	objects := make([]tokenObject, len(tokens))
	for i, t := range tokens {
		objects[i] = newTokenObject(t)
	}
	return cut(p, objects), nil
}

// tokenRequest asks for a token.
type tokenRequest struct {
	Name      string     `json:"name"`
	Email     string     `json:"email"`      // default: the caller's
	Role      string     `json:"role"`       // read or edit
	ExpiresOn *time.Time `json:"expires_on"` // RFC 3339; absent: never
}

func (tokenRequest) bodyIsOurs() {}

// createToken makes a token. This answer is the only place where its secret is ever seen; what is stored is a hash.
func (s *server) createToken(ctx context.Context, c *call, req tokenRequest) (tokenObject, error) {
	if s.Tokens == nil {
		return tokenObject{}, noRoute(c.url)
	}
	if err := s.checkToken(&req, c); err != nil {
		return tokenObject{}, err
	}
	secret, token, err := principal.NewToken(req.Name, req.Email, principal.Role(req.Role))
	if err != nil {
		return tokenObject{}, err
	}
	token.CreatedOn = s.Now().UTC()
	if req.ExpiresOn != nil {
		token.ExpiresOn = req.ExpiresOn.UTC()
	}
	entry := auditlog.Entry{
		At: token.CreatedOn, Actor: c.caller.Name, Action: "token.create", Object: token.ID, Outcome: "done",
		Detail: map[string]string{"name": token.Name, "email": token.Email, "role": string(token.Role)},
	}
	if err := s.Tokens.AddToken(ctx, token, entry); err != nil {
		return tokenObject{}, err
	}
	object := newTokenObject(token)
	object.Value = secret
	return object, nil
}

func (s *server) checkToken(req *tokenRequest, c *call) error {
	if req.Email == "" {
		req.Email = c.caller.Token.Email
	}
	switch {
	case req.Name == "" || len(req.Name) > 100 || strings.ContainsFunc(req.Name, isControl):
		return invalid("/name", "name: give the token a name of at most 100 bytes, for the audit log")
	case len(req.Email) > 254 || !strings.Contains(req.Email, "@") || strings.ContainsFunc(req.Email, isControl):
		return invalid("/email", "email: "+clip(req.Email, 60)+" is no e-mail address")
	case req.Role != string(principal.Read) && req.Role != string(principal.Edit):
		return invalid("/role", "role: want read or edit")
	case req.ExpiresOn != nil && !req.ExpiresOn.After(s.Now()):
		return invalid("/expires_on", "expires_on: is in the past")
	}
	return nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// tokenID is Cloudflare's answer to the deletion of a token.
type tokenID struct {
	ID string `json:"id"`
}

// revokeToken removes a token. It works no more when the answer is sent: every call looks its token up.
func (s *server) revokeToken(ctx context.Context, c *call, _ none) (tokenID, error) {
	if s.Tokens == nil {
		return tokenID{}, noRoute(c.url)
	}
	id := c.path("token")
	tokens, err := s.Tokens.ListTokens(ctx)
	if err != nil {
		return tokenID{}, err
	}
	entry := auditlog.Entry{At: s.Now().UTC(), Actor: c.caller.Name, Action: "token.revoke", Object: id, Outcome: "done"}
	for _, t := range tokens {
		if t.ID == id {
			entry.Detail = map[string]string{"name": t.Name, "email": t.Email, "role": string(t.Role)}
		}
	}
	switch err := s.Tokens.DeleteToken(ctx, id, entry); {
	case errors.Is(err, principal.ErrNoToken):
		return tokenID{}, refuse(http.StatusNotFound, codeNotFound, "no token has the id "+id)
	case errors.Is(err, principal.ErrLastEditToken):
		return tokenID{}, refuse(http.StatusBadRequest, codeConflict,
			"token "+id+" is the last one of role edit that works: make another first, or nobody could change anything any more")
	case err != nil:
		return tokenID{}, err
	}
	return tokenID{ID: id}, nil
}
