{{/* The release's name, with the chart's unless it is in there already. */}}
{{- define "klamm-operator.fullname" -}}
{{- if contains "klamm-operator" .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-klamm-operator" (.Release.Name | trunc 37 | trimSuffix "-") -}}
{{- end -}}
{{- end }}

{{/* The same for what belongs to no namespace: two releases in two namespaces must not meet. */}}
{{- define "klamm-operator.global" -}}
{{- printf "%s:%s" .Release.Namespace (include "klamm-operator.fullname" .) -}}
{{- end }}

{{/* The operator's pods. The brokers' network policies admit them by the first of these. */}}
{{- define "klamm-operator.selector" -}}
app.kubernetes.io/name: klamm-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "klamm-operator.labels" -}}
{{ include "klamm-operator.selector" . }}
{{ include "klamm-operator.about" . }}
{{- end }}

{{- define "klamm-operator.about" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "klamm-operator.account" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "klamm-operator.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{- define "klamm-operator.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end }}

{{/* What Pod Security calls restricted, for the pod and for its container. */}}
{{- define "klamm-operator.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "klamm-operator.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* How the operator is told what to do; also for the Job that follows it. */}}
{{- define "klamm-operator.environment" -}}
- name: KLAMM_OPERATOR_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: KLAMM_OPERATOR_IDENTITY
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: KLAMM_OPERATOR_WATCH_NAMESPACES
  value: {{ join "," .Values.watchNamespaces | quote }}
- name: KLAMM_OPERATOR_LOG
  value: {{ .Values.log.level | quote }}
- name: KLAMM_OPERATOR_LOG_FORMAT
  value: {{ .Values.log.format | quote }}
{{- end }}

{{- define "klamm-operator.prometheus" -}}
{{- if .Capabilities.APIVersions.Has "monitoring.coreos.com/v1" }}yes{{ end -}}
{{- end }}

{{/* Where Klamm's resources are: a part of the monitors. */}}
{{- define "klamm-operator.everywhere" -}}
{{- if .Values.watchNamespaces -}}
matchNames: {{- toYaml .Values.watchNamespaces | nindent 2 }}
{{- else -}}
any: true
{{- end -}}
{{- end }}

{{/* What the Job after an uninstall needs. */}}
{{- define "klamm-operator.afterwards" -}}
helm.sh/hook: post-delete
helm.sh/hook-weight: "-5"
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded,hook-failed
{{- end }}

{{/* The namespaces that are looked after, as the ClusterRole tells other releases. */}}
{{- define "klamm-operator.watches" -}}
{{- join "," .Values.watchNamespaces | default "*" -}}
{{- end }}

{{/* Fails where another release looks after the same resources. helm template, and who installs by it, cannot see that. */}}
{{- define "klamm-operator.alone" -}}
{{- $own := splitList "," (include "klamm-operator.watches" .) }}
{{- range $role := (lookup "rbac.authorization.k8s.io/v1" "ClusterRole" "" "").items }}
{{- $told := $role.metadata.annotations | default dict }}
{{- $both := false }}
{{- range splitList "," (get $told "klamm.dev/controllers") }}
{{- if has . $.Values.controllers }}{{ $both = true }}{{ end }}
{{- end }}
{{- $other := ne $role.metadata.name (include "klamm-operator.global" $) }}
{{- if and $other (hasKey $told "klamm.dev/watches") (hasPrefix (printf "%s:" $.Release.Namespace) $role.metadata.name) }}
{{- fail (printf "the operator of ClusterRole %s is in namespace %s already, and its Lease lets one act at a time there. Give each release a namespace of its own." $role.metadata.name $.Release.Namespace) }}
{{- end }}
{{- if and $both $other }}
{{- range splitList "," (get $told "klamm.dev/watches") }}
{{- if or (eq . "*") (has "*" $own) (has . $own) }}
{{- $what := eq . "*" | ternary "all namespaces" (printf "namespace %s" .) }}
{{- fail (printf "the operator of ClusterRole %s looks after %s already: two would undo each other's work. Give each release watchNamespaces of its own." $role.metadata.name $what) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
