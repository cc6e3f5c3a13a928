{{/*
The lines that make a kube-scheduler use the extender: (dict "root" $ "url" "https://..." "folder" "/etc/..." ); the same
for the scheduler of the chart and, in the notes, for one that exists.
*/}}
{{- define "fracgpu.extenderConfig" -}}
# Above 100 nodes kube-scheduler stops looking once it has found enough that fit by sums, before it asks the extender.
# The extender may drop all of those because no single GPU is free enough, and the pod would wait although others fit.
percentageOfNodesToScore: 100
extenders:
  {{- with .comment }}
  {{- . | nindent 2 }}
  {{- end }}
  - urlPrefix: {{ .url }}
    filterVerb: filter # drops the nodes without a GPU that has enough in one piece
    prioritizeVerb: prioritize # packs: the fullest GPU with room, then the fullest node
    preemptVerb: preempt # of lower priority, those that free one GPU rather than enough in sum
    bindVerb: bind # chooses the GPU, and writes it together with the node
    # The extender takes verbs from this client certificate only: whoever may bind pods gives GPUs away. The certificate
    # and its key are read again when they change, the CA at the start only.
    enableHTTPS: true
    tlsConfig:
      serverName: {{ include "fracgpu.host" (list .root "extender") }}
      caFile: {{ .folder }}/ca.crt
      certFile: {{ .folder }}/tls.crt
      keyFile: {{ .folder }}/tls.key
    # The best node gets 10 points, all others fewer. Multiplied by this, one point weighs as much as a whole in-tree
    # plugin of weight 1: packing GPUs goes before spreading CPU load, and affinity and topology spread still count.
    weight: 10
    # Send names, not whole Node objects: the extender knows the GPUs of each node, and 5000 nodes stay 0.2 MB.
    nodeCacheCapable: true
    # kube-scheduler's own default, written down because the extender's deadlines add up to less.
    httpTimeout: 5s
    # Never true: without the extender, kube-scheduler would bind by itself, and no GPU would be chosen or reserved.
    ignorable: false
    # The extender is asked only for pods that request one of these. Not ignored by the scheduler: its own fit check by
    # the node's sum is cheap, comes first, and drops the full nodes.
    managedResources:
      - name: fracgpu.io/memory
        ignoredByScheduler: false
      - name: fracgpu.io/replica
        ignoredByScheduler: false
{{- end }}

{{/* The image of kube-scheduler: as given, or that of the one which runs. */}}
{{- define "fracgpu.schedulerImage" -}}
{{- $image := .Values.scheduler.image -}}
{{- if not $image -}}
{{- range (lookup "v1" "Pod" "kube-system" "").items -}}
{{- if and (not $image) (eq (dig "labels" "component" "" .metadata) "kube-scheduler") -}}
{{- $image = (first .spec.containers).image -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if not $image -}}
{{- fail (printf "no image for the second kube-scheduler: scheduler.image is empty, and no pod with the label component=kube-scheduler is in kube-system (managed clusters hide it, `helm template` looks at no cluster). Give the image of kube-scheduler in your cluster's version, with its tag: where your distribution's other images come from (kubectl get pods -n kube-system -o jsonpath='{..image}'), or a mirror of Kubernetes' own images, the one named kube-scheduler with the tag that `kubectl version` shows for the server (here %s). Or set scheduler.enabled=false and add the extender to the scheduler that you have" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{ $image }}
{{- end }}

{{/* Why an existing kube-scheduler calls an address. */}}
{{- define "fracgpu.addressComment" -}}
# kube-scheduler runs in the host's network, which often cannot resolve names of Services: so this is the ClusterIP of
# the Service {{ include "fracgpu.name" . }}-extender. What the certificate has to be for is in serverName.
{{- end }}
