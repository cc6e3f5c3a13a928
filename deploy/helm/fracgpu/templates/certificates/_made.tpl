{{/*
The certificates of mode helm: one CA, whose key is forgotten once it has signed, and what it signed. They are made
together, so that all templates of a rendering see the same; those in the cluster are kept as long as they are for the
same names and have more than a third of their life left. Puts them under .Values.madeCertificates, for whoever asks
next: part -> crt, key; ca; annotations.
*/}}
{{- define "fracgpu.certificates.make" -}}
{{- if not .Values.madeCertificates }}
{{- $days := int .Values.certificates.helm.days }}
{{- $names := dict
    "extender" (include "fracgpu.hosts" (list . "extender") | fromJsonArray)
    "plugin" (include "fracgpu.hosts" (list . "plugin") | fromJsonArray)
    "scheduler" (list "fracgpu-scheduler") }}
{{- if .Values.redis.enabled }}
{{- $_ := set $names "redis" (include "fracgpu.hosts" (list . "redis") | fromJsonArray) }}
{{- end }}
{{- $for := $names | toJson | sha256sum | trunc 16 }}
{{- $kept := dict }}
{{- range $part := keys $names }}
{{- $found := lookup "v1" "Secret" $.Release.Namespace (include "fracgpu.tlsSecret" (list $ $part)) }}
{{- $notes := dig "metadata" "annotations" dict $found }}
{{- $until := dig "fracgpu.io/renewed-from" "0" $notes | int64 }}
{{- if and (eq (dig "fracgpu.io/made-for" "" $notes) $for) (gt $until (now | unixEpoch | int64)) }}
{{- $_ := set $kept $part $found }}
{{- end }}
{{- end }}
{{- $made := dict }}
{{- if eq (len $kept) (len $names) }}
{{- range $part, $secret := $kept }}
{{- $_ := set $made $part (dict "crt" (index $secret.data "tls.crt") "key" (index $secret.data "tls.key")) }}
{{- end }}
{{- $_ := set $made "ca" (index $kept.extender.data "ca.crt") }}
{{- $_ := set $made "annotations" (pick $kept.extender.metadata.annotations "fracgpu.io/made-for" "fracgpu.io/renewed-from") }}
{{- else }}
{{- $ca := genCAWithKey "fracgpu" $days (genPrivateKey "ecdsa") }}
{{- range $part, $hosts := $names }}
{{- $addresses := ne $part "scheduler" | ternary (list "127.0.0.1") list }}
{{- $signed := genSignedCertWithKey (first $hosts) $addresses $hosts $days $ca (genPrivateKey "ecdsa") }}
{{- $_ := set $made $part (dict "crt" ($signed.Cert | b64enc) "key" ($signed.Key | b64enc)) }}
{{- end }}
{{- $_ := set $made "ca" ($ca.Cert | b64enc) }}
{{- $from := add (now | unixEpoch | int64) (div (mul $days 86400 2) 3) }}
{{- $_ := set $made "annotations" (dict "fracgpu.io/made-for" $for "fracgpu.io/renewed-from" (toString $from)) }}
{{- end }}
{{- $_ := set .Values "madeCertificates" $made }}
{{- end }}
{{- end }}

{{/* Of all of them, so that pods that read theirs at the start only are started again when they change. */}}
{{- define "fracgpu.certificates.sum" -}}
{{- include "fracgpu.certificates.make" . -}}
{{ .Values.madeCertificates | toJson | sha256sum }}
{{- end }}
