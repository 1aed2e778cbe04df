{{/* The name of what there is one of. */}}
{{- define "dryfence.name" -}}
{{- if contains "dryfence" .Release.Name -}}
{{ .Release.Name | trunc 45 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-dryfence" .Release.Name | trunc 45 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{/* Which pods are ours: never changes, a DaemonSet's selector cannot. */}}
{{- define "dryfence.selector" -}}
app.kubernetes.io/name: dryfence
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: agent
{{- end -}}

{{/* Labels of every object. */}}
{{- define "dryfence.labels" -}}
app.kubernetes.io/name: dryfence
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: dryfence
{{- end -}}

{{- define "dryfence.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* What the agent may do besides what every process may. Root without capabilities of its own is nobody; a user other
     than root would get none of these, because Kubernetes sets no ambient capabilities. */}}
{{- define "dryfence.securityContext" -}}
runAsUser: 0
runAsGroup: 0
privileged: false
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
  add: {{ concat (list "BPF" "NET_ADMIN" "PERFMON") .Values.extraCapabilities | toJson }}
{{- end -}}
