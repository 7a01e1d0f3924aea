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

{{/* The Secrets with credentials of index, hub and proxy that the values name. */}}
{{- define "flashrun.upstreams" -}}
{{- $trainer := .Values.trainer -}}
{{- range $name, $secret := dict "index" $trainer.pipIndexSecret "hub" $trainer.hubSecret "proxy" $trainer.proxySecret }}
{{- if $secret }}
{{ $name }}: {{ $secret }}
{{- end }}
{{- end }}
{{- end }}

{{/* The settings file: the models in flashrun.api.platform, in the same spelling. */}}
{{- define "flashrun.platform" -}}
{{- $storage := omit .Values.storage "existingSecret" "accessKey" "secretKey" "sharedAccessKey" "sharedSecretKey" "webIdentity" -}}
{{- $trainer := merge (dict "caBundleConfigMap" (include "flashrun.caConfigMap" .)) .Values.trainer -}}
{{- dict "namespaces" .Values.namespaces "storage" $storage "trainer" $trainer "pools" .Values.pools "models" .Values.models "modelsFromMirror" .Values.modelsFromMirror "environments" .Values.environments "budgets" .Values.budgets "retention" .Values.retention | toYaml -}}
{{- end }}

{{/* The egress rules of trainer pods, each from what `networkPolicy.egress` names, or from an address. */}}
{{- define "flashrun.egress" -}}
{{- $given := .Values.networkPolicy.egress -}}
{{- $trainer := .Values.trainer -}}
{{- $index := list (default "https://index" $trainer.pipIndexUrl) -}}
{{- range $trainer.pipUrlHosts }}{{ $index = append $index (printf "https://%s" .) }}{{ end -}}
{{- $urls := dict
  "storage" (list .Values.storage.endpoint)
  "hub" (list (default "https://hub" $trainer.hubEndpoint))
  "index" $index
  "proxy" (compact (list $trainer.proxy.https_proxy $trainer.proxy.http_proxy))
-}}
# dns
{{ default (list (include "flashrun.dnsRule" . | fromYaml)) $given.dns | toYaml }}
{{- $context := . }}
{{- range $name := list "storage" "hub" "index" "proxy" }}
# {{ $name }}
{{- with get $given $name }}
{{ toYaml . }}
{{- else }}
{{- range uniq (get $urls $name) }}
{{ include "flashrun.egressRule" (dict "url" . "except" $context.Values.networkPolicy.egressExcept) }}
{{- end }}
{{- end }}
{{- end }}
{{- with $given.extra }}
# extra
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "flashrun.dnsRule" -}}
ports:
  - {protocol: UDP, port: 53}
  - {protocol: TCP, port: 53}
{{- end }}

{{/*
One egress rule for the host and the port of a URL. A NetworkPolicy knows no names: a Service is every
pod of its namespace, because its pods may listen on another port; another name is every address.
*/}}
{{- define "flashrun.egressRule" -}}
{{- $url := urlParse .url -}}
{{- $host := $url.hostname -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default (ternary "443" "80" (eq $url.scheme "https")) -}}
{{- $labels := splitList "." $host -}}
{{- if and (ge (len $labels) 3) (eq (index $labels 2) "svc") -}}
- to:
    - namespaceSelector:
        matchLabels: {kubernetes.io/metadata.name: {{ index $labels 1 }}}
{{- else -}}
- to:
    {{- if contains ":" $host }}
    - ipBlock: {cidr: "{{ $host }}/128"}
    {{- else if regexMatch "^[0-9.]+$" $host }}
    - ipBlock: {cidr: {{ $host }}/32}
    {{- else }}
    {{- $four := list }}{{ $six := list }}
    {{- range .except }}{{ if contains ":" . }}{{ $six = append $six . }}{{ else }}{{ $four = append $four . }}{{ end }}{{ end }}
    - ipBlock: {cidr: 0.0.0.0/0, except: {{ toJson $four }}}
    - ipBlock: {cidr: "::/0", except: {{ toJson $six }}}
    {{- end }}
  ports:
    - {protocol: TCP, port: {{ $port }}}
{{- end -}}
{{- end }}

{{/* A condition in CEL: a text is one of some patterns, in which a last `*` is any rest. */}}
{{- define "flashrun.oneOf" -}}
{{- $text := .text -}}
{{- $conditions := list -}}
{{- range .patterns -}}
{{- $method := ternary (printf "%s.startsWith('%s')" $text (trimSuffix "*" .)) (printf "%s == '%s'" $text .) (hasSuffix "*" .) -}}
{{- $conditions = append $conditions $method -}}
{{- end -}}
{{- printf "(%s)" (join " || " $conditions) -}}
{{- end }}

{{/* The binding of a policy to namespaces. */}}
{{- define "flashrun.policyBinding" }}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ .name }}
  labels: {{- include "flashrun.labels" .context | nindent 4 }}
spec:
  policyName: {{ .name }}
  validationActions: [Deny]
  matchResources:
    namespaceSelector:
      matchExpressions:
        - {key: kubernetes.io/metadata.name, operator: In, values: {{ toJson .namespaces }}}
{{- end }}

{{/* The number of GPUs of a Job in CEL, of whichever resource the pools count. */}}
{{- define "flashrun.jobGpus" -}}
{{- $sums := list -}}
{{- range uniq (splitList "," (include "flashrun.gpuResources" .)) -}}
{{- $sums = append $sums (printf "object.spec.template.spec.containers.map(c, has(c.resources) && has(c.resources.limits) && '%s' in c.resources.limits ? quantity(c.resources.limits['%s']).asInteger() : 0).sum()" . .) -}}
{{- end -}}
(has(object.spec.parallelism) ? int(object.spec.parallelism) : 1) * ({{ join " + " $sums }})
{{- end }}

{{- define "flashrun.gpuResources" -}}
{{- $names := list -}}
{{- range .Values.pools -}}{{- $names = append $names (default "nvidia.com/gpu" .resource) -}}{{- end -}}
{{- join "," $names -}}
{{- end }}
