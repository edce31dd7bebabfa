package edge

import "html/template"

// pageData is what the refusal page shows.
type pageData struct {
	Status              int
	Title, Text, Advice string
	Host                string
	Subject, Serial     string // of the certificate that was presented; empty without one
	RequestID, Time     string
}

// newPage parses the refusal page: one file, no script, nothing loaded from elsewhere.
func newPage() *template.Template { return template.Must(template.New("refusal").Parse(pageHTML)) }

const pageHTML = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<title>{{.Status}} {{.Title}}</title>
<style>
:root { --bg: #f4f5f7; --card: #fff; --ink: #1c2230; --soft: #5b6474; --line: #e1e4ea; --mark: #b3261e; --tint: #fbeceb; }
@media (prefers-color-scheme: dark) {
  :root { --bg: #12151b; --card: #1b2029; --ink: #e8ebf1; --soft: #a0a9b8; --line: #2f3642; --mark: #ff8a80; --tint: #3a2224; }
}
* { box-sizing: border-box; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 24px 16px; background: var(--bg);
  color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { width: 100%; max-width: 560px; background: var(--card); border: 1px solid var(--line); border-radius: 14px;
  padding: 32px; box-shadow: 0 1px 2px rgb(0 0 0 / .04), 0 12px 32px rgb(0 0 0 / .06); }
.status { display: inline-block; padding: 2px 12px; border-radius: 999px; background: var(--tint); color: var(--mark);
  font-size: 14px; font-weight: 600; }
h1 { margin: 16px 0 8px; font-size: 24px; line-height: 1.25; font-weight: 650; overflow-wrap: anywhere; text-wrap: balance; }
p { margin: 0; color: var(--soft); }
dl { margin: 24px 0 0; padding-top: 20px; border-top: 1px solid var(--line); display: grid;
  grid-template-columns: max-content minmax(0, 1fr); gap: 8px 20px; font-size: 14px; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
.mono { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: 13px; }
@media (max-width: 480px) {
  main { padding: 24px 20px; }
  h1 { font-size: 21px; }
  dl { grid-template-columns: minmax(0, 1fr); gap: 0; }
  dd { margin-bottom: 10px; }
  dd:last-child { margin-bottom: 0; }
}
</style>
</head>
<body>
<main>
<span class="status">{{.Status}} {{.Title}}</span>
<h1>{{.Text}}</h1>
<p>{{.Advice}}</p>
<dl>
{{with .Host}}<dt>Host</dt><dd>{{.}}</dd>{{end}}
{{with .Subject}}<dt>Certificate</dt><dd>{{.}}</dd>{{end}}
{{with .Serial}}<dt>Serial number</dt><dd class="mono">{{.}}</dd>{{end}}
<dt>Time</dt><dd>{{.Time}}</dd>
<dt>Request number</dt><dd class="mono">{{.RequestID}}</dd>
</dl>
</main>
</body>
</html>
`
