{{/*
What the operator may do, by where it does it and by what it looks after. A test holds these to what the operator's code
asks of the API server.
*/}}

{{/* The types of the Topics and ConsumerGroups that are looked after, as a list in JSON. */}}
{{- define "klamm-operator.guests" -}}
{{- $kinds := list -}}
{{- if has "topics" .Values.controllers }}{{ $kinds = append $kinds "topics" }}{{ end -}}
{{- if has "consumer-groups" .Values.controllers }}{{ $kinds = append $kinds "consumergroups" }}{{ end -}}
{{- toJson $kinds -}}
{{- end }}

{{/* In the namespaces of the resources. */}}
{{- define "klamm-operator.rules.resources" -}}
{{- $own := include "klamm-operator.guests" . | fromJsonArray -}}
{{- if has "clusters" .Values.controllers }}{{ $own = prepend $own "clusters" }}{{ end -}}
- apiGroups: [klamm.dev]
  resources: {{ toJson $own }}
  verbs: [get, list, watch, patch]
- apiGroups: [klamm.dev]
  resources:
    {{- range $own }}
    - {{ . }}/status
    {{- end }}
  verbs: [patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- if and (.Values.scaleTargets | default dict).allowed (has "consumer-groups" .Values.controllers) }}
# How many consumers a group has, and who else decides that. Nothing else of what runs them.
- apiGroups: [apps]
  resources: [deployments/scale, statefulsets/scale]
  verbs: [get, patch]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [list]
- apiGroups: [keda.sh]
  resources: [scaledobjects]
  verbs: [list]
{{- end }}
{{- if has "clusters" .Values.controllers }}
# To own objects in the name of a Cluster, where the API server asks for that.
- apiGroups: [klamm.dev]
  resources: [clusters/finalizers]
  verbs: [update]
# What Clusters are made of.
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [configmaps, serviceaccounts]
  verbs: [get, list, watch, create, patch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch]
# The brokers' certificates, each by its name: Secrets are neither listed nor watched.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, update]
# The label with the rack; a broker that is restarted.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, patch, delete]
# Why pods cannot be created.
- apiGroups: [""]
  resources: [events]
  verbs: [list]
# Volumes that grow.
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, patch]
{{- else }}
# Where the brokers of the others are.
- apiGroups: [klamm.dev]
  resources: [clusters]
  verbs: [get, list, watch]
{{- end }}
{{- end }}

{{/* What belongs to no namespace. */}}
{{- define "klamm-operator.rules.global" -}}
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  resourceNames: [clusters.klamm.dev, topics.klamm.dev, consumergroups.klamm.dev]
  verbs: [get, list, watch]
{{- if include "klamm-operator.guests" . | fromJsonArray }}
# Labels of namespaces, for a Cluster's allowedNamespaces.
- apiGroups: [""]
  resources: [namespaces]
  verbs: [get]
{{- end }}
{{- if has "clusters" .Values.controllers }}
# Labels of nodes, for racks.
- apiGroups: [""]
  resources: [nodes]
  verbs: [get]
# Whether volumes can grow.
- apiGroups: [storage.k8s.io]
  resources: [storageclasses]
  verbs: [get]
{{- end }}
{{- end }}

{{/*
With Roles only. A namespace that is being deleted may lose its RoleBinding before its Topics: without this the operator
could not let them go, and the namespace would never be gone.
*/}}
{{- define "klamm-operator.rules.leaving" -}}
- apiGroups: [klamm.dev]
  resources: [clusters]
  verbs: [get, list, watch]
{{- with include "klamm-operator.guests" . | fromJsonArray }}
- apiGroups: [klamm.dev]
  resources: {{ toJson . }}
  verbs: [get, list, watch, patch]
- apiGroups: [klamm.dev]
  resources:
    {{- range . }}
    - {{ . }}/status
    {{- end }}
  verbs: [patch]
{{- end }}
{{- end }}

{{/* In the operator's own namespace. */}}
{{- define "klamm-operator.rules.lease" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [klamm-operator]
  verbs: [get, patch]
{{- end }}
