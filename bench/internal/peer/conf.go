package peer

// sekishoConf: the identity headers of RFC 9440, which are the default, stay on. A list belongs to a CA with a policy of
// its own, which is the default one here.
const sekishoConf = `listen:
  edge: "{{.Addr}}"
  admin: "127.0.0.1:0"
  pki: "127.0.0.1:0"
  metrics: "127.0.0.1:0"
log:
  access: "off"
  level: warn
{{- if .Trust}}
trust:
  - {name: bench, certs: "{{.CA}}"{{if .List}}, crls: ["{{.List}}"]{{end}}}
{{- end}}
hosts:
  - name: {{.Host}}
    upstreams: ["http://{{.Origin}}"]
    certificate: {cert: "{{.Cert}}", key: "{{.Key}}"}
    client_auth: {mode: require, ca: [{{if .Trust}}bench{{else}}"{{.CA}}"{{end}}]}
`

// nginxConf: one worker; tickets are on by default and said so; connections are not recycled after 1,000 requests.
const nginxConf = `worker_processes 1;
daemon off;
pid {{.Dir}}/nginx.pid;
error_log {{.Dir}}/error.log error;
worker_rlimit_nofile 65536;
events { worker_connections 16384; }
http {
  access_log off;
  client_body_temp_path {{.Dir}}/body;
  proxy_temp_path {{.Dir}}/proxy;
  fastcgi_temp_path {{.Dir}}/fastcgi;
  uwsgi_temp_path {{.Dir}}/uwsgi;
  scgi_temp_path {{.Dir}}/scgi;
  keepalive_requests 1000000000;
  keepalive_timeout 3600;
  upstream origin {
    server {{.Origin}};
    keepalive 128;
    keepalive_requests 1000000000;
  }
  server {
    listen {{.Addr}} ssl http2 backlog=4096;
    server_name {{.Host}};
    ssl_certificate {{.Cert}};
    ssl_certificate_key {{.Key}};
    ssl_client_certificate {{.CA}};
{{- if .List}}
    ssl_crl {{.ListPEM}};
{{- end}}
    ssl_verify_client on;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_tickets on;
    location / {
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_pass http://origin;
    }
  }
}
`

// caddyConf: caddy turns session tickets off by itself where client certificates are asked for.
const caddyConf = `{
	admin off
	auto_https off
	persist_config off
	storage file_system {{.Dir}}/caddy
	log {
		output discard
	}
}
https://{{.Host}}:{{.Port}} {
	bind 127.0.0.1
	tls {{.Cert}} {{.Key}} {
		client_auth {
			mode require_and_verify
			trust_pool file {{.CA}}
		}
	}
	reverse_proxy {{.Origin}} {
		transport http {
			keepalive_idle_conns_per_host 256
		}
	}
}
`
