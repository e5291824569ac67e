{{- define "capstan.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimAll "-" }}
{{- end }}

{{/* At most 52 letters: the label of a StatefulSet's revision has ten more, and a label has 63. */}}
{{- define "capstan.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimAll "-" }}
{{- else }}
{{- $name := include "capstan.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 52 | trimAll "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimAll "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "capstan.selector" -}}
app.kubernetes.io/name: {{ include "capstan.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "capstan.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "capstan.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "capstan.serviceAccount" -}}
{{- default (include "capstan.fullname" .) .Values.serviceAccount.name }}
{{- end }}

{{- define "capstan.image" -}}
{{- $repository := required "image.repository is needed: no image is published, README.md says how one is made" .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{ $repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ $repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end }}

{{- define "capstan.policyConfigMap" -}}
{{- default (printf "%s-policy" (include "capstan.fullname" .)) .Values.policy.existingConfigMap }}
{{- end }}

{{/* Labels that a user adds. Those of the chart stay as they are: selectors look for them. */}}
{{- define "capstan.added" -}}
{{- with omit . "helm.sh/chart" "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/version" "app.kubernetes.io/managed-by" }}
{{- toYaml . }}
{{- end }}
{{- end }}

{{/* What every object is called. */}}
{{- define "capstan.metadata" -}}
name: {{ include "capstan.fullname" . | quote }}
namespace: {{ .Release.Namespace | quote }}
labels:
  {{- include "capstan.labels" . | nindent 2 }}
{{- end }}

{{/* A file of a ConfigMap. A block of YAML would end at line ends of other kinds than \n, which JSON escapes. */}}
{{- define "capstan.data" -}}
{{- if regexMatch "[\r\\x{85}\\x{2028}\\x{2029}]" .text -}}
{{ .key | quote }}: {{ .text | toJson }}
{{- else }}
{{- toYaml (dict .key .text) }}
{{- end }}
{{- end }}

{{/* Whether port 4481 is served: for AuthZEN, and for the keys that events are signed with. */}}
{{- define "capstan.http" -}}
{{- if or .Values.authzen.enabled (and .Values.store.enabled .Values.publicUrl) }}true{{ end }}
{{- end }}

{{/* What cannot be meant. Lint shows these as notes. */}}
{{- define "capstan.check" -}}
{{- $sources := 0 }}
{{- if .Values.policy.document }}{{ $sources = add1 $sources }}{{ end }}
{{- if .Values.policy.existingConfigMap }}{{ $sources = add1 $sources }}{{ end }}
{{- if .Values.store.enabled }}{{ $sources = add1 $sources }}{{ end }}
{{- if ne (int $sources) 1 }}
{{- fail "the policy: give exactly one of policy.document, policy.existingConfigMap and store.enabled" }}
{{- end }}
{{- if and .Values.store.enabled (not (and .Values.store.organization .Values.store.owner)) }}
{{- fail "store.organization and store.owner are needed: a new store is made for them" }}
{{- end }}
{{- if and (not .Values.store.enabled) (or .Values.store.organization .Values.store.owner .Values.store.webhookAllow) }}
{{- fail "store: its values need store.enabled=true" }}
{{- end }}
{{- if and .Values.publicUrl (not (include "capstan.http" .)) }}
{{- fail "publicUrl: is for AuthZEN and for the events of a store: set authzen.enabled or store.enabled" }}
{{- end }}
{{- if and .Values.store.webhookAllow (not .Values.publicUrl) }}
{{- fail "store.webhookAllow: events are sent only with publicUrl" }}
{{- end }}
{{- if and (not .Values.acceptPlaintext) (not .Values.tls.secretName) }}
{{- fail "acceptPlaintext: whoever can connect may ask about every identity, and nothing is encrypted. Give tls.secretName; or say in networkPolicy.clients who may connect, and set acceptPlaintext=true" }}
{{- end }}
{{- if and .Values.acceptPlaintext .Values.tls.secretName }}
{{- fail "acceptPlaintext: with tls.secretName nothing is served in plain text" }}
{{- end }}
{{- if and .Values.tls.secretName (not .Values.tls.clientCertificates) (not .Values.callers) (not .Values.acceptOpenDecisions) }}
{{- fail "callers: nobody could ask. Say who may, set tls.clientCertificates, or set acceptOpenDecisions=true for whoever can connect" }}
{{- end }}
{{- if and .Values.acceptOpenDecisions (or .Values.callers .Values.tls.clientCertificates (not .Values.tls.secretName)) }}
{{- fail "acceptOpenDecisions: is for TLS without callers and without tls.clientCertificates" }}
{{- end }}
{{- if and .Values.tls.clientRevocations (or (not .Values.tls.clientCertificates) (not .Values.tls.secretName)) }}
{{- fail "tls.clientRevocations: is for certificates of clients: set tls.clientCertificates" }}
{{- end }}
{{- if and .Values.management.enabled (not .Values.store.enabled) }}
{{- fail "management.enabled: only a store is managed: set store.enabled" }}
{{- end }}
{{- if and .Values.management.enabled (not .Values.tls.secretName) (not .Values.management.acceptPlaintext) }}
{{- fail "management.acceptPlaintext: the credentials of those who manage are not encrypted. Give tls.secretName; or say in networkPolicy.management who may connect, and set management.acceptPlaintext=true" }}
{{- end }}
{{- if and .Values.management.acceptPlaintext (or .Values.tls.secretName (not .Values.management.enabled)) }}
{{- fail "management.acceptPlaintext: is for management.enabled without tls.secretName" }}
{{- end }}
{{- if and .Values.service.headless (ne .Values.service.type "ClusterIP") }}
{{- fail "service.headless: only a Service of the type ClusterIP can be without an address" }}
{{- end }}
{{- $least := .Values.podDisruptionBudget.minAvailable }}
{{- if and .Values.podDisruptionBudget.enabled (not .Values.store.enabled) (gt (int .Values.replicaCount) 1) (not (kindIs "string" $least)) (ge (int $least) (int .Values.replicaCount)) }}
{{- fail "podDisruptionBudget.minAvailable: must be less than replicaCount, or no node can be drained" }}
{{- end }}
{{- $own := list "--policy" "--data" "--listen" "--http" "--probes" "--insecure-plaintext" "--drain-delay-ms" "--routes" "--decision-log" "--otlp-endpoint" "--workers" "--public-url" "--webhook-allow" "--tls-cert" "--tls-key" "--client-ca" "--client-crl" "--callers" "--insecure-open-decisions" "--listen-management" "--insecure-plaintext-management" }}
{{- range .Values.extraArgs }}
{{- if has (regexFind "^[^=]*" .) $own }}
{{- fail (printf "extraArgs: the chart says %s: there is a value for it" .) }}
{{- end }}
{{- end }}
{{- end }}

{{/* The pod, which a Deployment or a StatefulSet makes. */}}
{{- define "capstan.pod" -}}
metadata:
  labels:
    {{- include "capstan.labels" . | nindent 4 }}
    {{- with include "capstan.added" .Values.podLabels }}
    {{- . | nindent 4 }}
    {{- end }}
  {{- with .Values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "capstan.serviceAccount" . | quote }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds | int64 }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . | quote }}
  {{- end }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile:
      type: RuntimeDefault
  {{- if .Values.store.enabled }}
  initContainers:
    - name: init
      image: {{ include "capstan.image" . | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args:
        - init
        - --if-missing
        # A folder of the volume: the store wants one that is its user's alone.
        - --data=/var/lib/capstan/store
        - {{ printf "--org=%s" .Values.store.organization | quote }}
        - {{ printf "--owner=%s" .Values.store.owner | quote }}
      {{- include "capstan.container" . | nindent 6 }}
      volumeMounts:
        - name: data
          mountPath: /var/lib/capstan
  {{- end }}
  containers:
    - name: capstan
      image: {{ include "capstan.image" . | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args:
        - serve
        {{- if .Values.store.enabled }}
        - --data=/var/lib/capstan/store
        {{- range .Values.store.webhookAllow }}
        - {{ printf "--webhook-allow=%s" . | quote }}
        {{- end }}
        {{- else }}
        - {{ printf "--policy=/etc/capstan/policy/%s" .Values.policy.key | quote }}
        {{- end }}
        {{- with .Values.publicUrl }}
        - {{ printf "--public-url=%s" . | quote }}
        {{- end }}
        - {{ printf "--listen=%s:4480" .Values.listenAddress | quote }}
        {{- if .Values.management.enabled }}
        - {{ printf "--listen-management=%s:4483" .Values.listenAddress | quote }}
        {{- if not .Values.tls.secretName }}
        - --insecure-plaintext-management
        {{- end }}
        {{- end }}
        - {{ if include "capstan.http" . }}{{ printf "--http=%s:4481" .Values.listenAddress | quote }}{{ else }}--http=none{{ end }}
        - {{ printf "--probes=%s:4482" .Values.listenAddress | quote }}
        {{- if .Values.tls.secretName }}
        - --tls-cert=/etc/capstan/tls/tls.crt
        - --tls-key=/etc/capstan/tls/tls.key
        {{- if .Values.tls.clientCertificates }}
        - --client-ca=/etc/capstan/tls/ca.crt
        {{- range .Values.tls.clientRevocations }}
        - {{ printf "--client-crl=/etc/capstan/tls/%s" . | quote }}
        {{- end }}
        {{- end }}
        {{- else }}
        - --insecure-plaintext
        {{- end }}
        {{- if .Values.callers }}
        - --callers=/etc/capstan/callers/callers.yaml
        {{- else if not .Values.tls.clientCertificates }}
        - --insecure-open-decisions
        {{- end }}
        # Not ready, and still answering, until every balancer has noticed.
        - --drain-delay-ms=5000
        {{- if .Values.envoy.routes }}
        - --routes=/etc/capstan/routes/routes.yaml
        {{- end }}
        {{- if .Values.decisionLog }}
        - --decision-log=-
        {{- end }}
        {{- with .Values.otlpEndpoint }}
        - {{ printf "--otlp-endpoint=%s" . | quote }}
        {{- end }}
        {{- with .Values.workers }}
        - --workers={{ . | int64 }}
        {{- end }}
        {{- range .Values.extraArgs }}
        - {{ . | quote }}
        {{- end }}
      env:
        - name: CAPSTAN_LOG
          value: {{ .Values.logLevel | quote }}
      ports:
        - name: grpc
          containerPort: 4480
        {{- if .Values.management.enabled }}
        - name: management
          containerPort: 4483
        {{- end }}
        {{- if include "capstan.http" . }}
        - name: http
          containerPort: 4481
        {{- end }}
        - name: probes
          containerPort: 4482
      # Without a service name health says whether the server is ready as a whole.
      startupProbe:
        grpc:
          port: 4482
        periodSeconds: 2
        timeoutSeconds: 2
        failureThreshold: {{ max 1 (div .Values.startupSeconds 2) | int64 }}
      readinessProbe:
        grpc:
          port: 4482
          service: capstan.v1.DecisionService
        periodSeconds: 5
        timeoutSeconds: 2
        failureThreshold: 2
      # Not gRPC health, which depends on the policy: a restart would lose the policy that is served.
      livenessProbe:
        httpGet:
          path: /livez
          port: 4482
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      {{- include "capstan.container" . | nindent 6 }}
      volumeMounts:
        {{- if .Values.store.enabled }}
        - name: data
          mountPath: /var/lib/capstan
        {{- else }}
        # The whole folder: a file of it alone (subPath) would never change, and a changed policy is loaded without a restart.
        - name: policy
          mountPath: /etc/capstan/policy
          readOnly: true
        {{- end }}
        {{- if .Values.envoy.routes }}
        - name: routes
          mountPath: /etc/capstan/routes
          readOnly: true
        {{- end }}
        {{- if .Values.callers }}
        - name: callers
          mountPath: /etc/capstan/callers
          readOnly: true
        {{- end }}
        {{- if .Values.tls.secretName }}
        - name: tls
          mountPath: /etc/capstan/tls
          readOnly: true
        {{- end }}
  {{- if or (not .Values.store.enabled) .Values.envoy.routes .Values.callers .Values.tls.secretName }}
  volumes:
    {{- if not .Values.store.enabled }}
    - name: policy
      configMap:
        name: {{ include "capstan.policyConfigMap" . | quote }}
    {{- end }}
    {{- if .Values.envoy.routes }}
    - name: routes
      configMap:
        name: {{ printf "%s-routes" (include "capstan.fullname" .) | quote }}
    {{- end }}
    {{- if .Values.callers }}
    - name: callers
      configMap:
        name: {{ printf "%s-callers" (include "capstan.fullname" .) | quote }}
    {{- end }}
    {{- with .Values.tls.secretName }}
    - name: tls
      secret:
        secretName: {{ . | quote }}
        # For the group of the pod, and for nobody else: a key that others may read is refused.
        defaultMode: 0440
    {{- end }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if not .Values.store.enabled }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "capstan.selector" . | nindent 10 }}
  {{- end }}
{{- end }}

{{/* What every container has. */}}
{{- define "capstan.container" -}}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}
