package pkix

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Bounds of an OCSP response.
const (
	MaxOCSPResponseBytes = 256 << 10
	MaxOCSPSingles       = 1000 // certificates answered about
	MaxOCSPCertificates  = 10   // sent along by the responder
)

// OCSPSuccessful is the one responseStatus with an answer in it.
const OCSPSuccessful = 0

// ErrOCSPResponse is what every error of ParseOCSPResponse is.
var ErrOCSPResponse = errors.New("malformed OCSP response")

// OCSPResponse is the content of an OCSPResponse. Nothing in it is proved
// before CheckResponder said who signed it. Of an unsuccessful one only Raw and
// Status are set.
type OCSPResponse struct {
	Raw              []byte // the whole response; the other octets here are parts of it
	Status           int    // OCSPSuccessful, OCSPTryLater, ...; see OCSPStatusName
	ResponderName    []byte // the raw Name of who signed, or
	ResponderKeyHash []byte // the SHA-1 of the bits of its key; one of the two is set
	ProducedAt       time.Time
	Singles          []OCSPSingleResponse // at least one
	Nonce            []byte               // nil: none
	Certificates     []*x509.Certificate  // those sent along that can be read

	tbs       []byte // ResponseData, which is signed
	algorithm []byte // AlgorithmIdentifier
	signature []byte
	unread    error // why one of the certificates could not be read
}

// OCSPSingleResponse is what a response says of one certificate. RevokedAt and
// Reason count only with OCSPRevoked; Reason may be a number that nobody has
// assigned, and is revoked all the same.
type OCSPSingleResponse struct {
	CertID     OCSPCertID
	Status     OCSPStatus
	RevokedAt  time.Time
	Reason     Reason
	ThisUpdate time.Time
	NextUpdate time.Time // zero: none; RFC 6960, Section 4.2.2.1: newer information is available all the time
}

// OCSPStatusName is the RFC's name of a responseStatus: "tryLater".
func OCSPStatusName(status int) string {
	switch status {
	case OCSPSuccessful:
		return "successful"
	case OCSPMalformedRequest:
		return "malformedRequest"
	case OCSPInternalError:
		return "internalError"
	case OCSPTryLater:
		return "tryLater"
	case OCSPSigRequired:
		return "sigRequired"
	case OCSPUnauthorized:
		return "unauthorized"
	}
	return "responseStatus " + strconv.Itoa(status)
}

// ParseOCSPResponse reads an OCSPResponse in DER (RFC 6960, Section 4.2.1),
// successful or not. Other types than the basic response, versions other than
// v1, extensions that are marked critical and unknown, times that are not as
// RFC 5280 has them, bytes after the end and responses over the bounds are
// refused. A certificate that cannot be read is left out, as it cannot be who
// signed. Every error is ErrOCSPResponse. The response keeps parts of der,
// which must not change.
func ParseOCSPResponse(der []byte) (*OCSPResponse, error) {
	r := &OCSPResponse{Raw: der}
	if err := r.parse(der); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOCSPResponse, err)
	}
	return r, nil
}

// parse reads OCSPResponse and ResponseBytes.
func (r *OCSPResponse) parse(der []byte) error {
	if len(der) > MaxOCSPResponseBytes {
		return fmt.Errorf("%d bytes; at most %d are read", len(der), MaxOCSPResponseBytes)
	}
	input := cryptobyte.String(der)
	var outer, wrapped, bytes, basic cryptobyte.String
	var hasBytes bool
	if !input.ReadASN1(&outer, cbasn1.SEQUENCE) || !input.Empty() || !outer.ReadASN1Enum(&r.Status) ||
		!outer.ReadOptionalASN1(&wrapped, &hasBytes, explicit(0)) || !outer.Empty() {
		return errors.New("not an OCSPResponse in DER")
	}
	if r.Status != OCSPSuccessful {
		known := []int{OCSPMalformedRequest, OCSPInternalError, OCSPTryLater, OCSPSigRequired, OCSPUnauthorized}
		switch {
		case !slices.Contains(known, r.Status):
			return fmt.Errorf("unknown responseStatus %d", r.Status)
		case hasBytes: // RFC 6960, Section 4.2.1: with an error condition, responseBytes are not set
			return fmt.Errorf("responseStatus %s with an answer", OCSPStatusName(r.Status))
		}
		return nil
	}
	var responseType asn1.ObjectIdentifier
	if !hasBytes || !wrapped.ReadASN1(&bytes, cbasn1.SEQUENCE) || !wrapped.Empty() ||
		!bytes.ReadASN1ObjectIdentifier(&responseType) || !bytes.ReadASN1(&basic, cbasn1.OCTET_STRING) || !bytes.Empty() {
		return errors.New("successful, without an answer that can be read")
	}
	if !responseType.Equal(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 1}) { // id-pkix-ocsp-basic
		return fmt.Errorf("response type %.80s; only the basic one is read", responseType)
	}
	return r.parseBasic(basic)
}

// parseBasic reads BasicOCSPResponse.
func (r *OCSPResponse) parseBasic(input cryptobyte.String) error {
	var basic, tbs, algorithm, wrapped, certs cryptobyte.String
	var hasCerts bool
	if !input.ReadASN1(&basic, cbasn1.SEQUENCE) || !input.Empty() || !basic.ReadASN1Element(&tbs, cbasn1.SEQUENCE) ||
		!basic.ReadASN1Element(&algorithm, cbasn1.SEQUENCE) || !basic.ReadASN1BitStringAsBytes(&r.signature) ||
		!basic.ReadOptionalASN1(&wrapped, &hasCerts, explicit(0)) || !basic.Empty() {
		return errors.New("BasicOCSPResponse cannot be read")
	}
	r.tbs, r.algorithm = tbs, algorithm
	if hasCerts && (!wrapped.ReadASN1(&certs, cbasn1.SEQUENCE) || !wrapped.Empty()) {
		return errors.New("the certificates cannot be read")
	}
	if err := r.parseData(tbs); err != nil {
		return err
	}
	for n := 0; !certs.Empty(); n++ {
		var element cryptobyte.String
		if n == MaxOCSPCertificates {
			return fmt.Errorf("more than %d certificates sent along", MaxOCSPCertificates)
		}
		if !certs.ReadASN1Element(&element, cbasn1.SEQUENCE) {
			return errors.New("the certificates cannot be read")
		}
		cert, err := ParseAnyCertificate(element)
		if err != nil {
			r.unread = err
			continue
		}
		r.Certificates = append(r.Certificates, cert)
	}
	return nil
}

// parseData reads ResponseData.
func (r *OCSPResponse) parseData(input cryptobyte.String) error {
	var data, list, exts cryptobyte.String
	var hasExts bool
	var version int
	if !input.ReadASN1(&data, cbasn1.SEQUENCE) || !data.ReadOptionalASN1Integer(&version, explicit(0), 0) || version != 0 {
		return errors.New("the version is not v1")
	}
	if err := r.parseResponder(&data); err != nil {
		return err
	}
	if !readOCSPTime(&data, &r.ProducedAt) {
		return errors.New("producedAt is not a GeneralizedTime in seconds and Z")
	}
	if !data.ReadASN1(&list, cbasn1.SEQUENCE) || !data.ReadOptionalASN1(&exts, &hasExts, explicit(1)) || !data.Empty() {
		return errors.New("ResponseData cannot be read")
	}
	for !list.Empty() {
		if len(r.Singles) == MaxOCSPSingles {
			return fmt.Errorf("more than %d answers", MaxOCSPSingles)
		}
		single, err := readOCSPSingleResponse(&list)
		if err != nil {
			return err
		}
		r.Singles = append(r.Singles, single)
	}
	if len(r.Singles) == 0 {
		return errors.New("it answers about no certificate")
	}
	if hasExts {
		var err error
		if r.Nonce, err = readOCSPExtensions(exts, true); err != nil {
			return err
		}
	}
	return nil
}

// parseResponder reads ResponderID.
func (r *OCSPResponse) parseResponder(data *cryptobyte.String) error {
	var byName, byKey, name cryptobyte.String
	var hasName, hasKey bool
	if !data.ReadOptionalASN1(&byName, &hasName, explicit(1)) || !data.ReadOptionalASN1(&byKey, &hasKey, explicit(2)) || hasName == hasKey {
		return errors.New("the responder is named neither by name nor by key")
	}
	if hasName {
		if !byName.ReadASN1Element(&name, cbasn1.SEQUENCE) || !byName.Empty() {
			return errors.New("the responder's name cannot be read")
		}
		r.ResponderName = name
		return nil
	}
	if !byKey.ReadASN1Bytes(&r.ResponderKeyHash, cbasn1.OCTET_STRING) || !byKey.Empty() || len(r.ResponderKeyHash) != 20 {
		return errors.New("the responder's key is not named by a SHA-1")
	}
	return nil
}

// readOCSPSingleResponse reads one SingleResponse.
func readOCSPSingleResponse(list *cryptobyte.String) (OCSPSingleResponse, error) {
	var single, next, exts cryptobyte.String
	var hasNext, hasExts bool
	var s OCSPSingleResponse
	if !list.ReadASN1(&single, cbasn1.SEQUENCE) {
		return s, errors.New("a SingleResponse cannot be read")
	}
	var err error
	if s.CertID, err = readOCSPCertID(&single); err != nil {
		return s, err
	}
	if !s.readStatus(&single) {
		return s, errors.New("a certificate's status cannot be read")
	}
	if !readOCSPTime(&single, &s.ThisUpdate) || !single.ReadOptionalASN1(&next, &hasNext, explicit(0)) ||
		hasNext && (!readOCSPTime(&next, &s.NextUpdate) || !next.Empty()) {
		return s, errors.New("thisUpdate or nextUpdate is not a GeneralizedTime in seconds and Z")
	}
	if hasNext && s.NextUpdate.Before(s.ThisUpdate) {
		return s, errors.New("nextUpdate is before thisUpdate")
	}
	if !single.ReadOptionalASN1(&exts, &hasExts, explicit(1)) || !single.Empty() {
		return s, errors.New("a SingleResponse cannot be read")
	}
	if hasExts {
		_, err = readOCSPExtensions(exts, false)
	}
	return s, err
}

// readStatus reads CertStatus.
func (s *OCSPSingleResponse) readStatus(single *cryptobyte.String) bool {
	var content, wrapped cryptobyte.String
	var tag cbasn1.Tag
	if !single.ReadAnyASN1(&content, &tag) {
		return false
	}
	switch tag {
	case cbasn1.Tag(0).ContextSpecific(): // good, IMPLICIT NULL
		s.Status = OCSPGood
	case cbasn1.Tag(1).ContextSpecific().Constructed(): // revoked
		s.Status = OCSPRevoked
		var hasReason bool
		var reason int
		if !readOCSPTime(&content, &s.RevokedAt) || !content.ReadOptionalASN1(&wrapped, &hasReason, explicit(0)) ||
			hasReason && (!wrapped.ReadASN1Enum(&reason) || !wrapped.Empty()) {
			return false
		}
		s.Reason = Reason(reason)
	case cbasn1.Tag(2).ContextSpecific(): // unknown, IMPLICIT NULL
		s.Status = OCSPUnknown
	default:
		return false
	}
	return content.Empty()
}

// readOCSPTime reads a GeneralizedTime as RFC 5280, Section 4.1.2.5.2 demands
// it: to the second and in Z.
func readOCSPTime(from *cryptobyte.String, at *time.Time) bool {
	const layout = "20060102150405Z"
	var content cryptobyte.String
	if !from.ReadASN1(&content, cbasn1.GeneralizedTime) || len(content) != len(layout) {
		return false
	}
	read, err := time.Parse(layout, string(content))
	*at = read
	return err == nil && read.Year() > 0 // year 0 would be near the zero Time, which means "none"
}
