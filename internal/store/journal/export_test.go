package journal

// ParseRecord and AppendRecord are one record without a file around it.
func ParseRecord(b []byte) (Record, []byte, error) { return parseRecord(b) }

// AppendRecord is what ParseRecord reads.
func AppendRecord(r Record) ([]byte, error) { return r.append(nil) }
