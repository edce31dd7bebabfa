package main

import (
	"path/filepath"
	"strings"
)

// curl judges servers that have our certificates, by the lists of the whole path.
func (r *foreignRound) curl() func(who string) (string, bool) {
	return func(who string) (string, bool) {
		said, ok := r.run("curl", "-sS", "--max-time", "30", "--cacert", r.path("root.pem"), "--crlfile", r.path("lists.pem"),
			"https://"+r.servers[who]+"/")
		return said, ok && strings.Contains(said, "let in")
	}
}

// sClient is openssl s_client at the same servers, by the list of the certificate's own CA.
func (r *foreignRound) sClient() func(who string) (string, bool) {
	return func(who string) (string, bool) {
		said, ok := r.run("openssl", "s_client", "-connect", r.servers[who], "-CAfile", r.path("root.pem"), "-crl_check",
			"-CRL", r.path("issuing-crl.pem"), "-verify_return_error", "-verify_ip", "127.0.0.1", "-brief")
		return said, ok && strings.Contains(said, "Verification: OK")
	}
}

// opensslVerify judges the clients' certificates by the lists of the whole path.
func (r *foreignRound) opensslVerify() func(who string) (string, bool) {
	return func(who string) (string, bool) {
		return r.run("openssl", "verify", "-x509_strict", "-CAfile", r.path("root.pem"), "-untrusted", r.path("issuing.pem"), "-crl_check_all",
			"-CRLfile", r.path("issuing-crl.pem"), "-CRLfile", r.path("root-crl.pem"), "-purpose", "sslclient", r.path("client-"+who+".pem"))
	}
}

// gnutlsCLI connects to the same servers. It takes lists only of CAs that are in its file.
func (r *foreignRound) gnutlsCLI() func(who string) (string, bool) {
	return func(who string) (string, bool) {
		host, port, _ := strings.Cut(r.servers[who], ":")
		said, ok := r.run("gnutls-cli", "--x509cafile", r.path("all.pem"), "--x509crlfile", r.path("lists.pem"), "--verify-hostname", host, "-p", port, host)
		return said, ok && strings.Contains(said, "Status: The certificate is trusted")
	}
}

// certtool checks the signature of the list, also by the wrong CA, and then judges the clients' certificates.
func (r *foreignRound) certtool() func(who string) (string, bool) {
	r.must("certtool", "--verify-crl", "--load-ca-certificate", r.path("issuing.pem"), "--infile", r.path("issuing-crl.pem"))
	r.must("certtool", "--verify-crl", "--load-ca-certificate", r.path("root.pem"), "--infile", r.path("root-crl.pem"))
	if said, ok := r.run("certtool", "--verify-crl", "--load-ca-certificate", r.path("root.pem"), "--infile", r.path("issuing-crl.pem")); ok {
		r.t.Errorf("certtool takes the list of one CA for that of the other\n%s", said)
	}
	return func(who string) (string, bool) {
		return r.run("certtool", "--verify", "--verify-profile", "medium", "--load-ca-certificate", r.path("root.pem"),
			"--load-crl", r.path("lists.pem"), "--infile", r.path("client-"+who+"-chain.pem"))
	}
}

// nss imports both lists into a database and asks both of NSS's ways to judge: the old one and libpkix. NSS knows no
// critical extension of a list but the two that every list has; the import says so.
func (r *foreignRound) nss() func(who string) (string, bool) {
	db := "sql:" + r.dir
	r.must("certutil", "-N", "-d", db, "--empty-password")
	r.must("certutil", "-A", "-d", db, "-n", "root", "-t", "CT,C,C", "-i", r.path("root.pem"))
	r.must("certutil", "-A", "-d", db, "-n", "issuing", "-t", ",,", "-i", r.path("issuing.pem"))
	r.must("crlutil", "-I", "-d", db, "-i", r.path("root.crl"))
	r.must("crlutil", "-I", "-d", db, "-i", r.path("issuing.crl"))
	return func(who string) (string, bool) {
		nickname := "client-" + who
		r.must("certutil", "-A", "-d", db, "-n", nickname, "-t", ",,", "-i", r.path(nickname+".pem"))
		said, classic := r.run("certutil", "-V", "-d", db, "-n", nickname, "-u", "C")
		more, modern := r.run("vfychain", "-d", db, "-pp", "-u", "0", "-g", "leaf", "-m", "crl", "-s", "failIfNoInfo", "-a", r.path(nickname+".pem"))
		if classic != modern {
			r.t.Errorf("%s: certutil accepts it: %v, vfychain: %v\n%s\n%s", who, classic, modern, said, more)
		}
		return said + "\n" + more, classic && modern
	}
}

// opensslOCSP asks our responder with both hashes, with a nonce and without; the answers must agree.
func (r *foreignRound) opensslOCSP() func(who string) (string, bool) {
	return func(who string) (said string, accepted bool) {
		for i, flags := range [][]string{{"-nonce"}, {"-no_nonce"}, {"-sha256", "-nonce"}, {"-sha256", "-no_nonce"}} {
			// The hash is for the certificates that are named after it.
			args := append([]string{"ocsp"}, flags...)
			args = append(args, "-issuer", r.path("issuing.pem"), "-cert", r.path("client-"+who+".pem"), "-url", r.p.ready.PKI+"/ocsp",
				"-CAfile", r.path("root.pem"), "-verify_other", r.path("issuing.pem"))
			answer := r.must("openssl", args...)
			if !strings.Contains(answer, "Response verify OK") || strings.Contains(answer, "WARNING") {
				r.t.Errorf("%s: the answer is not right\n%s", who, answer)
			}
			reason := map[string]string{"revoked": "superseded", "held": "certificateHold", "reactivated": "certificateHold"}[who]
			if r.refused[who] && !strings.Contains(answer, "Reason: "+reason) {
				r.t.Errorf("%s: the reason is not %s\n%s", who, reason, answer)
			}
			good := strings.Contains(answer, filepath.Base("client-"+who+".pem")+": good")
			if i > 0 && good != accepted {
				r.t.Errorf("%s: %v answers otherwise\n%s\n%s", who, flags, said, answer)
			}
			said, accepted = said+answer, good
		}
		return said, accepted
	}
}

// ocsptool asks our responder as gnutls does; it always sends a nonce unless told not to.
func (r *foreignRound) ocsptool() func(who string) (string, bool) {
	return func(who string) (string, bool) {
		said := r.must("ocsptool", "--ask="+r.p.ready.PKI+"/ocsp", "--nonce", "--load-issuer", r.path("issuing.pem"), "--load-trust", r.path("all.pem"),
			"--load-cert", r.path("client-"+who+".pem"))
		if !strings.Contains(said, "Verifying OCSP Response: Success") {
			r.t.Errorf("%s: the answer is not right\n%s", who, said)
		}
		return said, strings.Contains(said, "Certificate Status: good")
	}
}
