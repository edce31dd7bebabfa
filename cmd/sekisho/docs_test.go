package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDocsConfigurationIsRead reads every configuration that the documents show, strictly.
func TestDocsConfigurationIsRead(t *testing.T) {
	found := 0
	for _, path := range []string{"../../README.md", "../../docs/operating.md"} {
		for _, b := range blocks(t, path) {
			if b.kind != "yaml" {
				continue
			}
			found++
			if _, err := load(t, b.text); err != nil {
				t.Errorf("%s:%d: %v", path, b.line, err)
			}
		}
	}
	if found < 2 {
		t.Errorf("%d configurations in the documents, want at least two", found)
	}
}

// TestDocsNameEveryConfigurationKey looks for each key of the configuration in docs/operating.md.
func TestDocsNameEveryConfigurationKey(t *testing.T) {
	source, err := os.ReadFile("config.go")
	if err != nil {
		t.Fatal(err)
	}
	document, err := os.ReadFile("../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	keys := regexp.MustCompile(`yaml:"([a-z0-9_]+)`).FindAllSubmatch(source, -1)
	if len(keys) < 40 {
		t.Fatalf("%d keys found in config.go", len(keys))
	}
	for _, m := range keys {
		if key := string(m[1]); !regexp.MustCompile(`\b` + key + `\b`).Match(document) {
			t.Errorf("docs/operating.md does not speak of the key %q", key)
		}
	}
}

// TestDocsLinksLead checks that the relative links of the documents lead to files.
func TestDocsLinksLead(t *testing.T) {
	paths := []string{"../../README.md", "../../CONTRIBUTING.md"}
	for _, pattern := range []string{"../../docs/*.md", "../../docs/*/*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) < 2 {
			t.Fatalf("%s: %v %v", pattern, found, err)
		}
		paths = append(paths, found...)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, m := range regexp.MustCompile(`\]\(([^)#]+)`).FindAllStringSubmatch(string(data), -1) {
			target := m[1]
			if strings.Contains(target, "://") {
				continue
			}
			dir := path[:strings.LastIndexByte(path, '/')+1]
			if _, err := os.Stat(dir + target); err != nil {
				t.Errorf("%s: link to %s: %v", path, target, err)
			}
		}
	}
}
