package main

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"sekisho/internal/trust"
)

// TestPolicyFlagsAreComplete: each field of a policy has a flag, is written in its field, and is printed.
func TestPolicyFlagsAreComplete(t *testing.T) {
	var fields []string
	for _, list := range [][]policyFlag{policyTexts(), policySpans(), policyLists(), policyChecks()} {
		for _, f := range list {
			fields = append(fields, f.field)
		}
	}
	var printed strings.Builder
	writePolicy(&printed, trust.Policy{})
	want := 0
	for _, f := range reflect.VisibleFields(reflect.TypeFor[trust.Policy]()) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		want++
		if !strings.Contains(" "+strings.Join(fields, " ")+" ", " "+name+" ") {
			t.Errorf("no flag sets %s", name)
		}
		if !strings.Contains("\n"+printed.String(), "\n"+name+"\t") {
			t.Errorf("%s is not printed", name)
		}
	}
	if len(fields) != want {
		t.Errorf("%d flags for %d fields", len(fields), want)
	}
	c := &cobra.Command{Run: func(*cobra.Command, []string) {}}
	var p policyFlags
	p.flags(c)
	c.SetArgs([]string{"--scope", "leaf", "--grace", "1m", "--refresh", "2m", "--source", "crl", "--source", "ocsp", "--crl", "/a", "--crlset", "", "--ocsp-nonce", "--eku", "ignore"})
	if err := c.Execute(); err != nil {
		t.Fatal(err)
	}
	changed, err := p.changed(c)
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(changed)
	if err != nil {
		t.Fatal(err)
	}
	if text := `{"crls":["/a"],"crlsets":[],"eku":"ignore","grace":60000000000,"ocsp_nonce":true,"refresh":120000000000,"scope":"leaf","sources":["crl","ocsp"]}`; string(got) != text {
		t.Errorf("%s, want %s", got, text)
	}
	var policy trust.Policy
	if err := json.Unmarshal(got, &policy); err != nil || policy.Check() != nil {
		t.Errorf("the API cannot read it: %v, %v", err, policy.Check())
	}
}
