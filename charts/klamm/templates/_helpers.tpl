{{- define "klamm.cluster" -}}
{{- default .Release.Name .Values.name -}}
{{- end }}

{{- define "klamm.labels" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: klamm
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The first listener that pods reach without TLS. */}}
{{- define "klamm.bootstrap" -}}
{{- if .Values.test.bootstrapServers -}}
{{- .Values.test.bootstrapServers -}}
{{- else -}}
{{- $found := dict "port" "" -}}
{{- range default (list (dict "port" 9092)) .Values.cluster.listeners -}}
{{- if and (not $found.port) (eq (default "internal" .type) "internal") (not .tls) -}}
{{- $_ := set $found "port" (toString .port) -}}
{{- end -}}
{{- end -}}
{{- if $found.port -}}
{{- printf "%s-bootstrap.%s.svc:%s" (include "klamm.cluster" .) .Release.Namespace $found.port -}}
{{- end -}}
{{- end -}}
{{- end }}
