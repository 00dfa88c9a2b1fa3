{{/* Names. 40 characters leave room for suffixes and the hashes that controllers append. */}}
{{- define "seqpar.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{- define "seqpar.coordinator" -}}{{ include "seqpar.fullname" . }}-coordinator{{- end -}}
{{- define "seqpar.worker" -}}{{ include "seqpar.fullname" . }}-worker{{- end -}}
{{- define "seqpar.dataClaim" -}}
{{ .Values.data.existingClaim | default (printf "%s-data" (include "seqpar.fullname" .)) }}
{{- end -}}
{{- define "seqpar.server" -}}{{ include "seqpar.coordinator" . }}:{{ .Values.coordinator.port }}{{- end -}}

{{/* Labels of a component: (list $ "worker"). */}}
{{- define "seqpar.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}
{{- define "seqpar.labels" -}}
{{- $root := index . 0 -}}
{{ include "seqpar.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name ($root.Chart.Version | replace "+" "_") }}
{{- end -}}

{{/* The reference of an image: (list $ .image "default/repository"). */}}
{{- define "seqpar.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- $repository := $image.repository | default (index . 2) -}}
{{- with $root.Values.global.imageRegistry }}{{ trimSuffix "/" . }}/{{ end -}}
{{- if $image.digest -}}
{{ $repository }}@{{ $image.digest }}
{{- else -}}
{{ $repository }}:{{ $image.tag | default $root.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* "4Gi" as a count of MiB. */}}
{{- define "seqpar.mebibytes" -}}
{{- $factor := dict "Mi" 1 "Gi" 1024 "Ti" 1048576 -}}
{{ mul (regexFind "^[0-9]+" . | int64) (get $factor (regexFind "[MGT]i$" .)) }}
{{- end -}}

{{/* What every pod says of itself. */}}
{{- define "seqpar.podSecurity" -}}
securityContext:
  runAsNonRoot: {{ ne (int64 .Values.runAsUser) 0 }}
  runAsUser: {{ .Values.runAsUser | int64 }}
  runAsGroup: {{ .Values.runAsUser | int64 }}
  fsGroup: {{ .Values.runAsUser | int64 }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
automountServiceAccountToken: false
# The variables of a service named seqpar-coordinator would be taken for flags.
enableServiceLinks: false
{{- with .Values.global.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* A container's: the capabilities that it has beside none. */}}
{{- define "seqpar.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
    {{- with . }}
    add: {{ toJson . }}
    {{- end }}
{{- end -}}

{{/* Where a pod runs: nodeSelector, tolerations, priority. */}}
{{- define "seqpar.scheduling" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* A ReadWriteOnce volume is on one node: coordinator and worker each go where the other is, whichever of them is replaced.
The first of all goes anywhere, since it is among those that it asks for. */}}
{{- define "seqpar.besideTheData" -}}
podAffinity:
  requiredDuringSchedulingIgnoredDuringExecution:
    - topologyKey: kubernetes.io/hostname
      labelSelector:
        matchLabels:
          app.kubernetes.io/name: {{ .Chart.Name }}
          app.kubernetes.io/instance: {{ .Release.Name }}
        matchExpressions:
          - {key: app.kubernetes.io/component, operator: In, values: [coordinator, worker]}
{{- end -}}

{{/* A value as it was written: Helm holds numbers as float64, and would print 8388608 as 8.388608e+06. */}}
{{- define "seqpar.plain" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- end -}}

{{/* `flags` as arguments. */}}
{{- define "seqpar.flags" -}}
{{- range $name, $value := . }}
- --{{ $name }}={{ include "seqpar.plain" $value }}
{{- end }}
{{- end -}}

{{/* The file of --tenants. */}}
{{- define "seqpar.tenants" -}}
{{- $limits := dict "queuedJobs" "queued_jobs" "runningJobs" "running_jobs" "devices" "devices" -}}
{{- range $tenant, $share := .Values.tenants }}
tenant={{ $tenant }}
{{- range $key, $name := $limits }}{{ with index $share $key }} {{ $name }}={{ int64 . }}{{ end }}{{ end }}
{{- with $share.outputBytes }} output_bytes={{ . }}{{ end }}
{{- end }}
{{- end -}}

{{/* Probes of the metrics port; (dict "startupSeconds" n). Not alive is a process whose loop stands still. It says nothing of
the other side: a worker without its coordinator is not restarted. */}}
{{- define "seqpar.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: metrics}
  periodSeconds: 5
  failureThreshold: {{ div .startupSeconds 5 }}
livenessProbe:
  httpGet: {path: /healthz, port: metrics}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: metrics}
  periodSeconds: 5
  timeoutSeconds: 5
{{- end -}}

{{/* What the schema cannot say; every template of a pod includes it. */}}
{{- define "seqpar.validate" -}}
{{- $worker := .Values.worker -}}
{{- include "seqpar.validateTls" . }}
{{- if and (eq $worker.kind "DaemonSet") (not $worker.nodeSelector) }}
{{- fail "worker.nodeSelector: is required with kind DaemonSet, such as {seqpar: worker}" }}
{{- end }}
{{- if ne .Values.data.accessMode "ReadWriteMany" }}
{{- if eq $worker.kind "DaemonSet" }}
{{- fail "data.accessMode: must be ReadWriteMany with worker.kind DaemonSet" }}
{{- else if gt (int $worker.replicas) 1 }}
{{- fail (printf "data.accessMode: must be ReadWriteMany with worker.replicas %d; %s allows 1" (int $worker.replicas) .Values.data.accessMode) }}
{{- end }}
{{- end }}
{{- if and (eq (int $worker.gpus) 0) (gt (int $worker.cpuSlots) (int $worker.cpus)) }}
{{- fail (printf "worker.cpuSlots: %d slots need a CPU each; worker.cpus is %d" (int $worker.cpuSlots) (int $worker.cpus)) }}
{{- end }}
{{- if and $worker.hostNetwork .Values.networkPolicy.enabled (not .Values.networkPolicy.nodeCidrs) }}
{{- fail "networkPolicy.nodeCidrs: is required with worker.hostNetwork: such pods have their nodes' addresses; or networkPolicy.enabled: false" }}
{{- end }}
{{- with .Values.coordinator }}
{{- if eq (int .port) (int .metricsPort) }}
{{- fail (printf "coordinator.metricsPort: %d is also coordinator.port" (int .port)) }}
{{- end }}
{{- end }}
{{- end -}}
