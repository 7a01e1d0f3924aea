{{- define "flashrun.labels" -}}
app.kubernetes.io/name: flashrun
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: flashrun
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "flashrun.selector" -}}
app.kubernetes.io/name: flashrun
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "flashrun.name" -}}
{{- if contains "flashrun" .Release.Name -}}{{ .Release.Name }}{{- else -}}{{ .Release.Name }}-flashrun{{- end -}}
{{- end }}

{{- define "flashrun.storageSecret" -}}
{{- .Values.storage.existingSecret | default (printf "%s-storage" (include "flashrun.name" .)) -}}
{{- end }}

{{- define "flashrun.caConfigMap" -}}
{{- if .Values.caBundle -}}{{ include "flashrun.name" . }}-ca{{- end -}}
{{- end }}

{{/* The settings file: the models in flashrun.api.platform, in the same spelling. */}}
{{- define "flashrun.platform" -}}
{{- $storage := omit .Values.storage "existingSecret" "accessKey" "secretKey" -}}
{{- $trainer := merge (dict "caBundleConfigMap" (include "flashrun.caConfigMap" .)) .Values.trainer -}}
{{- dict "namespaces" .Values.namespaces "storage" $storage "trainer" $trainer "pools" .Values.pools "models" .Values.models "environments" .Values.environments "retention" .Values.retention | toYaml -}}
{{- end }}
