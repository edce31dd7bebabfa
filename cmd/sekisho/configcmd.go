package main

import (
	"context"
	"fmt"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"sekisho/internal/store"
)

func newConfig(e env) *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "Check a configuration file, or have a running server read it again",
		Args:  noArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newConfigCheck(e), newConfigReload(e))
	return c
}

func newConfigCheck(e env) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "check FILE",
		Short: "Check a configuration file and print what would be in force",
		Long: `check reads the file and every file it names, as serve would, and prints the effective configuration.
Mistakes name the line and column; warnings go to standard error. Nothing is changed or contacted.
Exit codes: 0 fine, 2 not.`,
		Example: "  sekisho config check sekisho.yaml",
		Args:    oneArg("sekisho config check sekisho.yaml"),
		RunE:    func(c *cobra.Command, args []string) error { return configCheck(c.Context(), e, args[0], asJSON) },
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print it as JSON instead of YAML")
	return c
}

func configCheck(ctx context.Context, e env, path string, asJSON bool) error {
	cfg, err := loadConfig(path)
	if err != nil {
		return &usageError{err: err}
	}
	cfg = cfg.withDefaults()
	b := &baseBuilder{cfg: cfg}
	err = cfg.problems(ctx, b)
	for _, w := range b.warnings {
		fmt.Fprintf(e.stderr, "warning: %s\n", w)
	}
	if err != nil {
		return &usageError{err: fmt.Errorf("configuration %s: %w", path, err)}
	}
	var options []yaml.EncodeOption
	if asJSON {
		options = append(options, yaml.JSON())
	}
	out, err := yaml.MarshalWithOptions(cfg, options...)
	if err != nil {
		return err
	}
	_, err = e.stdout.Write(out)
	return err
}

func newConfigReload(e env) *cobra.Command {
	var t target
	c := &cobra.Command{
		Use:   "reload",
		Short: "Have the running server read its configuration file again: swapped whole, or nothing changes",
		Long: `reload has the running server read its configuration file again, as SIGHUP does, and says what came of it. Zones and hosts
are swapped whole, or nothing changes. Listeners, log, limits and the data directory stay as they were at start.`,
		Example: "  sekisho config reload --data /var/lib/sekisho",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if t.server == "" && !store.Held(t.data) {
				return &hinted{err: fmt.Errorf("no server runs on %s: nothing to reload", t.data), hint: "name the directory of one with --data DIR, or its admin API with --server URL"}
			}
			return t.with(c.Context(), e, func(ctx context.Context, a *api) error {
				if err := a.call(ctx, "POST", "/sekisho/config/reload", nil, nil); err != nil {
					return err
				}
				_, err := fmt.Fprintln(e.stdout, "reloaded")
				return err
			})
		},
	}
	t.flags(c)
	return c
}

// oneArg is cobra.ExactArgs(1) with an example in the hint.
func oneArg(example string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return &usageError{err: fmt.Errorf("%d arguments given, 1 wanted", len(args)), hint: "try: " + example}
		}
		return nil
	}
}
