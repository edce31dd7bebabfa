package admin

import (
	"bytes"
	"encoding/json"
	"encoding/json/jsontext"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// quotingHint is for the commonest way to send half a body: a shell cuts an unquoted variable at its first space.
const quotingHint = ` (hint: in a shell, quote variables inside the body: -d '{"a":"'"$VALUE"'"}'; ` +
	`unquoted, '$VALUE' is cut at its first space)`

// newlineHint is for a PEM pasted or expanded into a JSON string as it is.
const newlineHint = ` (hint: a PEM inside JSON needs its line ends as \n: jq -n --rawfile csr FILE '{csr:$csr}' writes it so)`

// bodyError answers a body that could not be read.
func bodyError(err error) error {
	if over, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return refuse(http.StatusRequestEntityTooLarge, codeMalformed, fmt.Sprintf("the body is larger than %d MiB", over.Limit>>20))
	}
	return &refusal{
		status:   http.StatusBadRequest,
		problems: []problem{{Code: codeMalformed, Message: "the body ended before its announced length"}},
		cause:    err,
	}
}

// ours marks a body that no client of Cloudflare's sends, so that a field which it does not have is a mistake: a token
// must not live for ever because its expires_on was misspelled.
type ours interface{ bodyIsOurs() }

// decodeJSON reads one JSON object and nothing after it. An error says at which byte, counted from 1, and what may
// have happened to the body on its way.
func decodeJSON(body []byte, req any) error {
	err := json.Unmarshal(body, req)
	if err == nil {
		if text := strings.TrimSpace(string(body)); text[0] != '{' {
			return refuse(http.StatusBadRequest, codeMalformed, "the body is JSON but no object: it must begin with {")
		}
		if err := unambiguous(body); err != nil {
			return err
		}
		if _, ok := req.(ours); ok {
			return noUnknown(body, req)
		}
		return nil
	}
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return malformed(body, syntax)
	}
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		pointer := "/" + strings.ReplaceAll(wrong.Field, ".", "/")
		return invalid(strings.TrimSuffix(pointer, "/"), fmt.Sprintf("%s at byte %d of the body: a JSON %s is not possible here, want %s",
			orBody(wrong.Field), wrong.Offset, wrong.Value, kindOf(wrong)))
	}
	return refuse(http.StatusBadRequest, codeMalformed, "Malformed JSON in request body: "+err.Error())
}

// unambiguous refuses what encoding/json lets pass and two readers may read in two ways: an object with a name twice (of
// which it takes the last), and text that is no UTF-8 (of which it makes U+FFFD). RFC 8259, Sections 4 and 8.1.
func unambiguous(body []byte) error {
	_, err := jsontext.NewDecoder(bytes.NewReader(body)).ReadValue()
	bad, ok := errors.AsType[*jsontext.SyntacticError](err)
	switch {
	case err == nil:
		return nil
	case ok && errors.Is(err, jsontext.ErrDuplicateName):
		pointer := clip(string(bad.JSONPointer), 200)
		return invalid(pointer, fmt.Sprintf("%s is in the body twice, again at byte %d: give it once", pointer, bad.ByteOffset+1))
	case ok:
		return refuse(http.StatusBadRequest, codeMalformed, fmt.Sprintf("Malformed JSON in request body: %v at byte %d of %d", bad.Err, bad.ByteOffset+1, len(body)))
	}
	return refuse(http.StatusBadRequest, codeMalformed, "Malformed JSON in request body: "+err.Error())
}

// noUnknown refuses fields that req does not have.
func noUnknown(body []byte, req any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(req); err != nil {
		return refuse(http.StatusBadRequest, codeInvalid, "the body: "+clip(strings.TrimPrefix(err.Error(), "json: "), 200)+": docs/api.md lists those of this call")
	}
	return nil
}

func malformed(body []byte, syntax *json.SyntaxError) error {
	hint := ""
	switch {
	case strings.Contains(syntax.Error(), "unexpected end"):
		hint = quotingHint
	case syntax.Offset > 0 && syntax.Offset <= int64(len(body)) && body[syntax.Offset-1] < ' ':
		hint = newlineHint
	case body[0] == '\'' || body[0] == '$' || body[0] == '@' || syntax.Offset <= 2:
		hint = quotingHint
	}
	return refuse(http.StatusBadRequest, codeMalformed, fmt.Sprintf("Malformed JSON in request body: %s at byte %d of %d%s",
		syntax.Error(), syntax.Offset, len(body), hint))
}

func orBody(field string) string {
	if field == "" {
		return "the body"
	}
	return field
}

// kindOf names the JSON kind that a Go type is decoded from.
func kindOf(wrong *json.UnmarshalTypeError) string {
	switch kind := wrong.Type.Kind().String(); kind {
	case "slice", "array":
		return "array"
	case "struct", "map":
		return "object"
	case "bool":
		return "true or false"
	case "int", "int64":
		return "a whole number"
	default:
		return kind
	}
}
