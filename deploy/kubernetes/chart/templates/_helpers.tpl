{{- define "capstan.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "capstan.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- $name := include "capstan.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "capstan.selector" -}}
app.kubernetes.io/name: {{ include "capstan.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
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
{{- if not .Values.acceptPlaintext }}
{{- fail "acceptPlaintext: whoever can connect may ask about every identity, and there is no TLS yet. Say in networkPolicy.clients who may connect, and set acceptPlaintext=true" }}
{{- end }}
{{- end }}

{{/* The pod, which a Deployment or a StatefulSet makes. */}}
{{- define "capstan.pod" -}}
metadata:
  labels:
    {{- include "capstan.labels" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "capstan.serviceAccount" . }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
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
      image: {{ include "capstan.image" . }}
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
      image: {{ include "capstan.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args:
        - serve
        {{- if .Values.store.enabled }}
        - --data=/var/lib/capstan/store
        {{- with .Values.store.publicUrl }}
        - {{ printf "--public-url=%s" . | quote }}
        {{- end }}
        {{- range .Values.store.webhookAllow }}
        - {{ printf "--webhook-allow=%s" . | quote }}
        {{- end }}
        {{- else }}
        - {{ printf "--policy=/etc/capstan/policy/%s" .Values.policy.key | quote }}
        {{- end }}
        - --listen=0.0.0.0:4480
        - --http={{ if .Values.authzen.enabled }}0.0.0.0:4481{{ else }}none{{ end }}
        - --probes=0.0.0.0:4482
        - --insecure-plaintext
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
        - --workers={{ . }}
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
        {{- if .Values.authzen.enabled }}
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
        failureThreshold: {{ max 1 (div .Values.startupSeconds 2) }}
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
  {{- if or (not .Values.store.enabled) .Values.envoy.routes }}
  volumes:
    {{- if not .Values.store.enabled }}
    - name: policy
      configMap:
        name: {{ include "capstan.policyConfigMap" . }}
    {{- end }}
    {{- if .Values.envoy.routes }}
    - name: routes
      configMap:
        name: {{ include "capstan.fullname" . }}-routes
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
