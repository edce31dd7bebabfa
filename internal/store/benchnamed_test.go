package store_test

import (
	"sync/atomic"
	"testing"

	"sekisho/internal/store/storetest"
	"sekisho/internal/testpki"
)

// BenchmarkRecordNamed: as BenchmarkRecordCertificate, with a certificate that has a host name and a request.
func BenchmarkRecordNamed(b *testing.B) {
	der := testpki.NewCA(b).Server("device-7.fleet.example.com").Cert.Raw
	s := open(b, b.TempDir())
	storetest.AddCA(b, s)
	var next atomic.Int64
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			c := storetest.Certificate(int(next.Add(1)))
			c.DER, c.CSR = der, make([]byte, 450)
			if err := s.RecordCertificate(b.Context(), c, storetest.Entry("certificate.issue", c.ID)); err != nil {
				b.Error(err)
			}
		}
	})
}
