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

{{/* How namespaces are chosen: one of list, selector, all. */}}
{{- define "flashrun.namespaces" -}}
{{- $ways := list -}}
{{- if .Values.namespaces -}}{{- $ways = append $ways "list" -}}{{- end -}}
{{- if .Values.namespaceSelector -}}{{- $ways = append $ways "selector" -}}{{- end -}}
{{- if .Values.allNamespaces -}}{{- $ways = append $ways "all" -}}{{- end -}}
{{- if ne (len $ways) 1 -}}
{{- fail "namespaces, namespaceSelector and allNamespaces are alternatives: set one of them, and namespaces: [] with one of the other two" -}}
{{- end -}}
{{- first $ways -}}
{{- end }}

{{/* Values that do not go together, which the schema cannot say. Nothing is printed. */}}
{{- define "flashrun.checkTogether" -}}
{{- range $table, $key := dict "pools" "name" "models" "id" -}}
{{- $names := list -}}
{{- range get $.Values $table | default list -}}
{{- $name := get . $key -}}
{{- if has $name $names -}}
{{- fail (printf "%s: %s is there more than once" $table $name) -}}
{{- end -}}
{{- $names = append $names $name -}}
{{- end -}}
{{- end -}}
{{- $sse := .Values.storage.sse | default "" -}}
{{- $traces := (.Values.monitoring | default dict).traces | default dict -}}
{{- if ne (eq $sse "kms") (ne (.Values.storage.sseKmsKey | default "") "") -}}
{{- fail "storage.sse: kms and storage.sseKmsKey belong together: set both, or neither of them" -}}
{{- end -}}
{{- if and (eq $sse "kms") (not (hasPrefix "https://" .Values.storage.endpoint)) -}}
{{- fail "storage.sse: kms needs a storage.endpoint with https" -}}
{{- end -}}
{{- with .Values.namespaceSelector -}}
{{- if not (or .matchLabels .matchExpressions) -}}
{{- fail "namespaceSelector is empty: give it matchLabels or matchExpressions, or set allNamespaces" -}}
{{- end -}}
{{- end -}}
{{- range (.Values.namespaceSelector | default dict).matchExpressions -}}
{{- if ne (has .operator (list "In" "NotIn")) (not (empty .values)) -}}
{{- fail (printf "namespaceSelector: %s of label %s %s" .operator .key (ternary "takes no values" "needs values" (not (empty .values)))) -}}
{{- end -}}
{{- end -}}
{{- if hasSuffix "/v1/traces" (trimSuffix "/" ($traces.endpoint | default "")) -}}
{{- fail "monitoring.traces.endpoint is the base address of the collector: leave out /v1/traces, which is added" -}}
{{- end -}}
{{- end }}

{{/* The labels of what the operator makes in the namespaces that it follows. */}}
{{- define "flashrun.followedLabels" -}}
app.kubernetes.io/name: flashrun
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: flashrun
flashrun.dev/served-by: {{ .Release.Namespace }}
{{- end }}

{{/* What a namespace that is followed needs, for the operator to make; the right to do so first. */}}
{{- define "flashrun.namespaceObjects" -}}
{{- $name := include "flashrun.name" . -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $name }}-followed
  labels: {{- include "flashrun.followedLabels" . | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {{ $name }}-served}
subjects:
  - {kind: ServiceAccount, name: {{ $name }}, namespace: {{ .Release.Namespace }}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $name }}-followed-public
  labels: {{- include "flashrun.followedLabels" . | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {{ $name }}-public}
subjects:
  - {kind: Group, name: "system:authenticated", apiGroup: rbac.authorization.k8s.io}
{{- if .Values.networkPolicy.enabled }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ $name }}-followed
  labels: {{- include "flashrun.followedLabels" . | nindent 4 }}
{{ include "flashrun.networkPolicySpec" . }}
{{- end }}
{{- if .Values.caBundle }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "flashrun.caConfigMap" . }}
  labels: {{- include "flashrun.followedLabels" . | nindent 4 }}
data:
  ca.crt: |
    {{- .Values.caBundle | nindent 4 }}
{{- end }}
{{- end }}

{{/* What the operator reads at its start: when it changes, another pod starts. A list is read again. */}}
{{- define "flashrun.startSettings" -}}
{{ omit (include "flashrun.platform" . | fromYaml) "namespaces" | toYaml }}
{{- if ne (include "flashrun.namespaces" .) "list" }}
---
{{ include "flashrun.namespaceObjects" . }}
{{- end }}
{{- end }}

{{/* What trainer pods accept and connect to. */}}
{{- define "flashrun.networkPolicySpec" -}}
{{- $several := false }}
{{- range .Values.pools }}
{{- if gt (int (default 1 .maxNodes)) 1 }}{{ $several = true }}{{ end }}
{{- end -}}
spec:
  podSelector:
    matchLabels: {app.kubernetes.io/managed-by: flashrun, app.kubernetes.io/component: trainer}
  policyTypes: [Ingress, Egress]
  {{- if $several }}
  # The pods of a run on several nodes reach each other, on ports that libraries choose.
  ingress:
    - from:
        - podSelector:
            matchLabels: {app.kubernetes.io/managed-by: flashrun, app.kubernetes.io/component: trainer}
  {{- else }}
  ingress: []
  {{- end }}
  egress:
    {{- if $several }}
    - to:
        - podSelector:
            matchLabels: {app.kubernetes.io/managed-by: flashrun, app.kubernetes.io/component: trainer}
    {{- end }}
    {{- include "flashrun.egress" . | nindent 4 }}
{{- end }}

{{/* A condition in CEL: a namespace is one that is followed. */}}
{{- define "flashrun.isFollowed" -}}
{{- $labels := "(has(namespaceObject.metadata.labels) ? namespaceObject.metadata.labels : {})" -}}
{{- $conditions := list (printf "object.metadata.namespace != '%s'" .Release.Namespace) "!object.metadata.namespace.startsWith('kube-')" -}}
{{- range $key, $value := .Values.namespaceSelector.matchLabels -}}
{{- $conditions = append $conditions (printf "'%s' in %s && %s['%s'] == '%s'" $key $labels $labels $key $value) -}}
{{- end -}}
{{- range .Values.namespaceSelector.matchExpressions -}}
{{- $has := printf "'%s' in %s" .key $labels -}}
{{- $listed := printf "(%s && %s['%s'] in [%s])" $has $labels .key (include "flashrun.celTexts" .values) -}}
{{- $condition := get (dict "In" $listed "NotIn" (printf "!%s" $listed) "Exists" $has "DoesNotExist" (printf "!(%s)" $has)) .operator -}}
{{- $conditions = append $conditions $condition -}}
{{- end -}}
{{- join " && " $conditions -}}
{{- end }}

{{- define "flashrun.celTexts" -}}
{{- $texts := list -}}
{{- range . -}}{{- $texts = append $texts (printf "'%s'" .) -}}{{- end -}}
{{- join ", " $texts -}}
{{- end }}

{{/* The settings file: the models in flashrun.api.platform, in the same spelling. */}}
{{- define "flashrun.platform" -}}
{{- $storage := dict -}}
{{- range $key, $value := omit .Values.storage "existingSecret" "accessKey" "secretKey" "sharedAccessKey" "sharedSecretKey" "webIdentity" -}}
{{- /* Helm 3 keeps keys without a value, and Helm 4 drops them. */ -}}
{{- if not (kindIs "invalid" $value) -}}{{- $_ := set $storage $key $value -}}{{- end -}}
{{- end -}}
{{- $trainer := merge (dict "caBundleConfigMap" (include "flashrun.caConfigMap" .)) .Values.trainer -}}
{{- $mode := include "flashrun.namespaces" . -}}
{{- $chosen := dict "namespaces" .Values.namespaces -}}
{{- if eq $mode "selector" -}}{{- $chosen = dict "namespaceSelector" .Values.namespaceSelector -}}{{- end -}}
{{- if eq $mode "all" -}}{{- $chosen = dict "allNamespaces" true -}}{{- end -}}
{{- merge $chosen (dict "storage" $storage "trainer" $trainer "pools" .Values.pools "models" .Values.models "modelsFromMirror" .Values.modelsFromMirror "mirrorReadable" .Values.mirrorReadable "environments" .Values.environments "budgets" .Values.budgets "retention" .Values.retention) | toYaml -}}
{{- end }}

{{/* The egress rules of trainer pods, each from what `networkPolicy.egress` names, or from an address. */}}
{{- define "flashrun.egress" -}}
{{- $given := .Values.networkPolicy.egress -}}
{{- $trainer := .Values.trainer -}}
{{- $proxy := $trainer.proxy | default dict -}}
{{- $index := list (default "https://index" $trainer.pipIndexUrl) -}}
{{- range $trainer.pipUrlHosts }}{{ $index = append $index (printf "https://%s" .) }}{{ end -}}
{{- $urls := dict
  "storage" (list .Values.storage.endpoint)
  "hub" (list (default "https://hub" $trainer.hubEndpoint))
  "index" $index
  "proxy" (compact (list $proxy.https_proxy $proxy.http_proxy))
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
{{- $url := urlParse (ternary .url (printf "http://%s" .url) (contains "://" .url)) -}}
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
  {{- if .namespaces }}
  matchResources:
    namespaceSelector:
      matchExpressions:
        - {key: kubernetes.io/metadata.name, operator: In, values: {{ toJson .namespaces }}}
  {{- else }}
  {{- with .context.Values.namespaceSelector }}
  matchResources:
    namespaceSelector: {{- toYaml . | nindent 6 }}
  {{- end }}
  {{- end }}
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

{{/* What pods of the operator have in common: its own, and that of `helm test`. */}}
{{- define "flashrun.operatorUser" -}}
runAsNonRoot: true
{{- if ne (toString .Values.operator.runAsUser) "cluster" }}
runAsUser: {{ .Values.operator.runAsUser | int64 }}
runAsGroup: {{ .Values.operator.runAsUser | int64 }}
fsGroup: {{ .Values.operator.runAsUser | int64 }}
{{- end }}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "flashrun.operatorVariables" -}}
- {name: HOME, value: /tmp}
{{- range $name, $value := .Values.operator.proxy }}
{{- if ne $name "no_proxy" }}
- {name: {{ upper $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}
{{- if .Values.operator.proxy }}
- name: NO_PROXY
  value: {{ printf "$(KUBERNETES_SERVICE_HOST),%s" (.Values.operator.proxy.no_proxy | default "") | trimSuffix "," | quote }}
{{- end }}
{{- with .Values.storage.webIdentity }}
{{- if .enabled }}
- {name: AWS_WEB_IDENTITY_TOKEN_FILE, value: /var/run/flashrun/web-identity/token}
- {name: AWS_ROLE_ARN, value: {{ .roleArn | quote }}}
{{- end }}
{{- end }}
{{- if .Values.caBundle }}
- {name: SSL_CERT_FILE, value: /etc/flashrun/ca/ca.crt}
{{- end }}
{{- end }}

{{- define "flashrun.operatorMounts" -}}
- {name: platform, mountPath: /etc/flashrun/platform, readOnly: true}
{{- if (.Values.storage.webIdentity | default dict).enabled }}
- {name: web-identity, mountPath: /var/run/flashrun/web-identity, readOnly: true}
{{- else }}
- {name: storage, mountPath: /var/run/flashrun/storage, readOnly: true}
{{- end }}
- {name: tmp, mountPath: /tmp}
{{- range $name, $secret := include "flashrun.upstreams" . | fromYaml }}
- {name: {{ $name }}, mountPath: /var/run/flashrun/upstreams/{{ $name }}, readOnly: true}
{{- end }}
{{- if .Values.caBundle }}
- {name: ca, mountPath: /etc/flashrun/ca, readOnly: true}
{{- end }}
{{- end }}

{{- define "flashrun.operatorVolumes" -}}
- name: platform
  configMap: {name: {{ include "flashrun.name" . }}-platform}
{{- with .Values.storage.webIdentity }}
{{- if .enabled }}
- name: web-identity
  projected:
    sources:
      - serviceAccountToken: {path: token, audience: {{ .audience }}, expirationSeconds: 3600}
{{- end }}
{{- end }}
{{- if not (.Values.storage.webIdentity | default dict).enabled }}
- name: storage
  secret: {secretName: {{ include "flashrun.storageSecret" . }}}
{{- end }}
- name: tmp
  emptyDir: {}
{{- range $name, $secret := include "flashrun.upstreams" . | fromYaml }}
- name: {{ $name }}
  secret: {secretName: {{ $secret }}}
{{- end }}
{{- if .Values.caBundle }}
- name: ca
  configMap: {name: {{ include "flashrun.caConfigMap" . }}}
{{- end }}
{{- end }}
