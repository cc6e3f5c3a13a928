{{/* What names begin with. */}}
{{- define "fracgpu.name" -}}
{{ .Values.nameOverride | default .Chart.Name }}
{{- end }}

{{/* Labels of an object of a component: include "fracgpu.labels" (list $ "extender") */}}
{{- define "fracgpu.labels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "fracgpu.name" $root }}-{{ index . 1 }}
app.kubernetes.io/part-of: fracgpu
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
{{- end }}

{{/* The labels by which its pods are selected; they may never change. */}}
{{- define "fracgpu.selector" -}}
app.kubernetes.io/name: {{ include "fracgpu.name" (index . 0) }}-{{ index . 1 }}
{{- end }}

{{/* Labels and annotations of its pods: (list $ "extender" .Values.extender (dict "annotation" "value")) */}}
{{- define "fracgpu.podMetadata" -}}
{{- $root := index . 0 -}}
{{- $values := index . 2 -}}
{{- with merge (dict) (index . 3) $values.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
labels:
  {{- include "fracgpu.selector" (list $root (index . 1)) | nindent 2 }}
  app.kubernetes.io/part-of: fracgpu
  {{- with $values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* Where its pods run, and by which right: (list $ "extender" .Values.extender) */}}
{{- define "fracgpu.placement" -}}
{{- $root := index . 0 -}}
{{- $values := index . 2 -}}
{{- with $values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Replicas rather on different nodes and zones, never at the price of not running. */}}
{{- define "fracgpu.spread" -}}
{{- $root := index . 0 -}}
{{- if not (index . 2).affinity }}
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "fracgpu.selector" (list $root (index . 1)) | nindent 14 }}
{{- end }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: topology.kubernetes.io/zone
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "fracgpu.selector" (list $root (index . 1)) | nindent 8 }}
{{- end }}

{{- define "fracgpu.image" -}}
{{- $tag := .Values.image.tag | default .Chart.AppVersion -}}
{{ .Values.image.repository }}{{ hasPrefix "sha256:" $tag | ternary "@" ":" }}{{ $tag }}
{{- end }}

{{/* Of pods that need no root: nobody in particular, as in the image. */}}
{{- define "fracgpu.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532 # or the keys in mounted Secrets could not be read
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "fracgpu.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Flags of all three services. */}}
{{- define "fracgpu.commonArgs" -}}
- --log-level={{ .Values.logLevel }}
- --log-format={{ .Values.logFormat }}
- --memory-unit-mib={{ int .Values.memoryUnitMiB }}
{{- with .Values.otlpEndpoint }}
- --otlp-endpoint={{ . }}
{{- end }}
{{- end }}

{{/* The name by which a Service is called from elsewhere in the cluster: (list $ "extender") */}}
{{- define "fracgpu.host" -}}
{{- $root := index . 0 -}}
{{ include "fracgpu.name" $root }}-{{ index . 1 }}.{{ $root.Release.Namespace }}.svc
{{- end }}

{{/* All names of a Service: (list $ "redis"), as JSON. */}}
{{- define "fracgpu.hosts" -}}
{{- $root := index . 0 -}}
{{- $name := printf "%s-%s" (include "fracgpu.name" $root) (index . 1) -}}
{{- $host := include "fracgpu.host" . -}}
{{ list $host (printf "%s.cluster.local" $host) (printf "%s.%s" $name $root.Release.Namespace) $name "localhost" | toJson }}
{{- end }}

{{/* The Secret with the certificate of a part: (list $ "extender") */}}
{{- define "fracgpu.tlsSecret" -}}
{{- $root := index . 0 -}}
{{- $part := index . 1 -}}
{{- $name := printf "%s-%s-tls" (include "fracgpu.name" $root) $part -}}
{{- $isExisting := eq $root.Values.certificates.mode "existing" -}}
{{- if and $isExisting (or (ne $part "webhook") (eq $root.Values.certificates.webhook "mode")) -}}
{{ index $root.Values.certificates.existing $part | default $name }}
{{- else -}}
{{ $name }}
{{- end -}}
{{- end }}

{{/* Who makes the webhook's certificate: self-made, cert-manager or existing. */}}
{{- define "fracgpu.webhookCertificate" -}}
{{- $mode := .Values.certificates.mode -}}
{{- $asked := .Values.certificates.webhook | default (eq $mode "cert-manager" | ternary "mode" "self-made") -}}
{{ and (eq $asked "mode") (ne $mode "helm") | ternary $mode "self-made" }}
{{- end }}

{{/* Whether the webhook's settings give plain nvidia.com/gpu a meaning; "true" or nothing. */}}
{{- define "fracgpu.readsNvidiaGpu" -}}
{{- $said := list (.Values.webhook.config.nvidiaGpu | default "leave") -}}
{{- range .Values.webhook.config.namespaces | default list -}}
{{- $said = append $said (.nvidiaGpu | default "leave") -}}
{{- end -}}
{{- if without $said "leave" }}true{{ end -}}
{{- end }}

{{/* Which Secret holds the password of the chart's Redis. */}}
{{- define "fracgpu.redisSecret" -}}
{{ .Values.redis.existingSecret | default (printf "%s-redis" (include "fracgpu.name" .)) }}
{{- end }}

{{/* Whether the plugin evicts: by the value or by its file; "true" or nothing. */}}
{{- define "fracgpu.evicts" -}}
{{- if or .Values.plugin.evictOveruse .Values.plugin.config.evictOveruse }}true{{ end -}}
{{- end }}

{{/* Whether one of the strategies is CDI; "true" or nothing. */}}
{{- define "fracgpu.usesCdi" -}}
{{- range .Values.plugin.deviceListStrategy }}{{ if hasPrefix "cdi-" . }}true{{ end }}{{ end -}}
{{- end }}

{{/* The RuntimeClass that the webhook gives to GPU pods: none where CDI alone shows them their GPUs. */}}
{{- define "fracgpu.podRuntimeClass" -}}
{{- $needed := false -}}
{{- range .Values.plugin.deviceListStrategy }}{{ if not (hasPrefix "cdi-" .) }}{{ $needed = true }}{{ end }}{{ end -}}
{{- if $needed }}{{ .Values.runtimeClassName }}{{ end -}}
{{- end }}
