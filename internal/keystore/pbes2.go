package keystore

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/des" // #nosec G502 -- 3DES is what openssl's -des3 makes: to read such keys, never to write them
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha1" // #nosec G505 -- HMAC-SHA1 is PBKDF2's default (RFC 8018, A.2): to read keys of older openssl
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"crypto/x509"
	stdpkix "crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"hash"
)

const (
	encryptedType = "ENCRYPTED PRIVATE KEY"
	plainType     = "PRIVATE KEY"

	saltBytes  = 16
	iterations = 600_000 // OWASP's number for PBKDF2-HMAC-SHA256; a fifth of a second
	// maxIterations bounds what a file may cost to open: some seconds.
	maxIterations = 10_000_000
)

// The algorithms of RFC 8018, Appendix C, and RFC 3565.
func oidPBES2() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13} }

func oidPBKDF2() asn1.ObjectIdentifier     { return asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12} }
func oidHMACSHA1() asn1.ObjectIdentifier   { return asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 7} }
func oidHMACSHA256() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 9} }
func oidHMACSHA512() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 11} }

func oidAES128CBC() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 2}
}

func oidAES192CBC() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 22}
}

func oidDES3CBC() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{1, 2, 840, 113549, 3, 7} } // RFC 8018, Appendix B.2.2

func oidAES256CBC() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}
}

// encryptedKeyInfo is EncryptedPrivateKeyInfo of RFC 5958, Section 3.
type encryptedKeyInfo struct {
	Algorithm struct {
		OID    asn1.ObjectIdentifier
		Params pbes2Params
	}
	Data []byte
}

// pbes2Params is PBES2-params of RFC 8018, Appendix A.4, with PBKDF2-params (A.2) as the only key derivation.
type pbes2Params struct {
	KDF struct {
		OID    asn1.ObjectIdentifier
		Params pbkdf2Params
	}
	Cipher struct {
		OID asn1.ObjectIdentifier
		IV  []byte
	}
}

type pbkdf2Params struct {
	Salt       []byte
	Iterations int
	KeyLength  int                         `asn1:"optional"`
	PRF        stdpkix.AlgorithmIdentifier `asn1:"optional"`
}

// encryptPEM turns a PRIVATE KEY block into an ENCRYPTED PRIVATE KEY block: PBKDF2-HMAC-SHA256 and AES-256-CBC.
func encryptPEM(plain, passphrase []byte) ([]byte, error) {
	block, _ := pem.Decode(plain)
	if block == nil || block.Type != plainType {
		return nil, errors.New("the key has no PKCS#8 form")
	}
	salt, iv := make([]byte, saltBytes), make([]byte, aes.BlockSize)
	rand.Read(salt)
	rand.Read(iv)
	var info encryptedKeyInfo
	info.Algorithm.OID = oidPBES2()
	p := &info.Algorithm.Params
	p.KDF.OID = oidPBKDF2()
	p.KDF.Params = pbkdf2Params{Salt: salt, Iterations: iterations, PRF: stdpkix.AlgorithmIdentifier{
		Algorithm: oidHMACSHA256(), Parameters: asn1.NullRawValue,
	}}
	p.Cipher.OID, p.Cipher.IV = oidAES256CBC(), iv
	mode, err := p.block(passphrase)
	if err != nil {
		return nil, err
	}
	pad := aes.BlockSize - len(block.Bytes)%aes.BlockSize
	info.Data = append(info.Data, block.Bytes...)
	for range pad { // RFC 8018, Section 6.1.1, step 4
		info.Data = append(info.Data, byte(pad))
	}
	cipher.NewCBCEncrypter(mode, iv).CryptBlocks(info.Data, info.Data)
	der, err := asn1.Marshal(info)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: encryptedType, Bytes: der}), nil
}

// decryptPEM turns the content of an ENCRYPTED PRIVATE KEY block into a PRIVATE KEY block.
func decryptPEM(der, passphrase []byte) ([]byte, error) {
	if len(passphrase) == 0 {
		return nil, fmt.Errorf("the key is encrypted: %w; give the passphrase it was made with", ErrPassphrase)
	}
	var info encryptedKeyInfo
	if rest, err := asn1.Unmarshal(der, &info); err != nil || len(rest) > 0 || !info.Algorithm.OID.Equal(oidPBES2()) {
		return nil, errors.New("the encryption is not PBES2 with PBKDF2; convert the key with openssl pkcs8 -topk8 -v2 aes-256-cbc")
	}
	p := &info.Algorithm.Params
	mode, err := p.block(passphrase)
	if err != nil {
		return nil, err
	}
	if len(info.Data) == 0 || len(info.Data)%mode.BlockSize() != 0 {
		return nil, errors.New("the encrypted key is cut off or damaged")
	}
	plain := make([]byte, len(info.Data))
	cipher.NewCBCDecrypter(mode, p.Cipher.IV).CryptBlocks(plain, info.Data)
	plain, ok := unpad(plain, mode.BlockSize())
	if ok {
		// CBC has no check of its own; that a PKCS#8 key comes out is the check.
		_, err := x509.ParsePKCS8PrivateKey(plain)
		ok = err == nil
	}
	if !ok {
		return nil, fmt.Errorf("%w: this one does not open the key, or the file is damaged", ErrPassphrase)
	}
	return pem.EncodeToMemory(&pem.Block{Type: plainType, Bytes: plain}), nil
}

// block derives the key and returns the cipher, after checking everything that the file says.
func (p *pbes2Params) block(passphrase []byte) (cipher.Block, error) {
	size, ivSize, newCipher := 0, aes.BlockSize, aes.NewCipher
	switch {
	case p.Cipher.OID.Equal(oidAES256CBC()):
		size = 32
	case p.Cipher.OID.Equal(oidAES192CBC()):
		size = 24
	case p.Cipher.OID.Equal(oidAES128CBC()):
		size = 16
	case p.Cipher.OID.Equal(oidDES3CBC()):
		size, ivSize, newCipher = 24, des.BlockSize, des.NewTripleDESCipher
	}
	var prf func() hash.Hash
	k := &p.KDF.Params
	switch oid := k.PRF.Algorithm; {
	case oid == nil, oid.Equal(oidHMACSHA1()):
		prf = sha1.New
	case oid.Equal(oidHMACSHA256()):
		prf = sha256.New
	case oid.Equal(oidHMACSHA512()):
		prf = sha512.New
	}
	if size == 0 || prf == nil || !p.KDF.OID.Equal(oidPBKDF2()) || len(p.Cipher.IV) != ivSize || k.KeyLength != 0 && k.KeyLength != size {
		return nil, errors.New("the encryption is not PBKDF2 with AES-CBC or 3DES-CBC; convert the key with openssl pkcs8 -topk8 -v2 aes-256-cbc")
	}
	if k.Iterations < 1 || k.Iterations > maxIterations {
		return nil, fmt.Errorf("the encryption has %d iterations; 1 to %d are taken", k.Iterations, maxIterations)
	}
	key, err := pbkdf2.Key(prf, string(passphrase), k.Salt, k.Iterations, size)
	if err != nil {
		return nil, err
	}
	return newCipher(key)
}

func unpad(plain []byte, size int) ([]byte, bool) {
	pad := int(plain[len(plain)-1])
	if pad < 1 || pad > size {
		return nil, false
	}
	cut := len(plain) - pad
	same := 1
	for _, b := range plain[cut:] {
		same &= subtle.ConstantTimeByteEq(b, byte(pad))
	}
	return plain[:cut], same == 1
}
