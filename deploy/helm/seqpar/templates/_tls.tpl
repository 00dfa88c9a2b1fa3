{{/* TLS: what is mounted where, and which flags say so. Folders are mounted whole, never by subPath: a renewed secret
is a new folder behind a link, and processes read it again. */}}

{{/* "secret" or "certManager"; empty without TLS. YAML reads a bare off as false. */}}
{{- define "seqpar.tls" -}}
{{- if has .Values.tls.mode (list "secret" "certManager") }}{{ .Values.tls.mode }}{{ end -}}
{{- end -}}

{{- define "seqpar.coordinatorSecret" -}}
{{ .Values.tls.coordinatorSecret | default (printf "%s-tls" (include "seqpar.coordinator" .)) }}
{{- end -}}
{{- define "seqpar.workerSecret" -}}
{{ .Values.tls.workerSecret | default (printf "%s-tls" (include "seqpar.worker" .)) }}
{{- end -}}

{{/* Where certificates are asked for, as a Certificate refers to it. */}}
{{- define "seqpar.issuer" -}}
{{- with .Values.tls.issuer -}}
name: {{ .name | default (printf "%s-ca" (include "seqpar.fullname" $)) }}
kind: {{ ternary .kind "Issuer" (ne .name "") }}
group: {{ ternary .group "cert-manager.io" (ne .name "") }}
{{- end -}}
{{- end -}}

{{- define "seqpar.caFile" -}}
/etc/seqpar/{{ ternary "ca" "tls" (ne .Values.tls.caSecret "") }}/ca.crt
{{- end -}}

{{/* A volume of a secret, readable by the pod's group: (list "name" "secret"). */}}
{{- define "seqpar.secretVolume" -}}
- name: {{ index . 0 }}
  secret:
    secretName: {{ index . 1 }}
    defaultMode: 0440
{{- end -}}

{{/* The coordinator's. */}}
{{- define "seqpar.coordinatorTlsFlags" -}}
- --tls-cert=/etc/seqpar/tls/tls.crt
- --tls-key=/etc/seqpar/tls/tls.key
- --tls-client-ca={{ include "seqpar.caFile" . }}
{{- if .Values.tls.requireClientCert }}
- --tls-require-client-cert
{{- end }}
- --tokens=/etc/seqpar/tokens/tokens
{{- end -}}
{{- define "seqpar.coordinatorTlsVolumes" -}}
{{ include "seqpar.secretVolume" (list "tls" (include "seqpar.coordinatorSecret" .)) }}
{{ include "seqpar.secretVolume" (list "tokens" .Values.tokens.existingSecret) }}
{{- with .Values.tls.caSecret }}
{{ include "seqpar.secretVolume" (list "ca" .) }}
{{- end }}
{{- end -}}

{{/* The workers'. */}}
{{- define "seqpar.workerTlsFlags" -}}
{{- $file := "tls" -}}
{{- if and (eq .Values.tls.mode "secret") (eq .Values.tls.workerCertificates "perNode") -}}
{{- $file = "$(SEQPAR_WORKER_NODE_NAME)" -}}
{{- end -}}
- --tls-ca={{ include "seqpar.caFile" . }}
- --tls-cert=/etc/seqpar/tls/{{ $file }}.crt
- --tls-key=/etc/seqpar/tls/{{ $file }}.key
{{- end -}}
{{- define "seqpar.workerTlsVolumes" -}}
{{- if and (eq .Values.tls.mode "certManager") (eq .Values.tls.workerCertificates "perNode") -}}
{{- $issuer := include "seqpar.issuer" . | fromYaml -}}
# A key that never leaves the pod's machine, and a certificate that names this pod, which is the node.
- name: tls
  csi:
    driver: csi.cert-manager.io
    readOnly: true
    volumeAttributes:
      csi.cert-manager.io/issuer-name: {{ $issuer.name }}
      csi.cert-manager.io/issuer-kind: {{ $issuer.kind }}
      csi.cert-manager.io/issuer-group: {{ $issuer.group }}
      csi.cert-manager.io/uri-sans: seqpar://node/${POD_NAME}
      csi.cert-manager.io/key-usages: digital signature,key encipherment,client auth
      csi.cert-manager.io/duration: {{ .Values.tls.duration }}
      {{- with .Values.runAsUser | int64 }}
      csi.cert-manager.io/fs-group: {{ . | quote }}
      {{- end }}
{{- else -}}
{{ include "seqpar.secretVolume" (list "tls" (include "seqpar.workerSecret" .)) }}
{{- end }}
{{- with .Values.tls.caSecret }}
{{ include "seqpar.secretVolume" (list "ca" .) }}
{{- end }}
{{- end -}}

{{/* (list $ "name"...): the folders that are mounted, and that of the authority where it has one. */}}
{{- define "seqpar.tlsMounts" -}}
{{- $root := first . -}}
{{- range concat (rest .) (ternary (list "ca") list (ne $root.Values.tls.caSecret "")) }}
- name: {{ . }}
  mountPath: /etc/seqpar/{{ . }}
  readOnly: true
{{- end }}
{{- end -}}

{{- define "seqpar.validateTls" -}}
{{- $tls := .Values.tls -}}
{{- if not (include "seqpar.tls" .) }}
{{- if not .Values.allowInsecure }}
{{- fail "allowInsecure: must be true where tls.mode is off: in a pod the coordinator listens on other addresses than loopback; or set tls.mode to secret or certManager" }}
{{- end }}
{{- if .Values.tokens.existingSecret }}
{{- fail "tokens.existingSecret: needs tls.mode secret or certManager: a token never travels without TLS" }}
{{- end }}
{{- if $tls.requireClientCert }}
{{- fail "tls.requireClientCert: needs tls.mode secret or certManager: without TLS nobody shows a certificate" }}
{{- end }}
{{- else }}
{{- if not .Values.tokens.existingSecret }}
{{- fail (printf "tokens.existingSecret: is required with tls.mode %s: a secret whose key tokens is the file of who may do what (docs/security.md)" $tls.mode) }}
{{- end }}
{{- if and (eq $tls.mode "certManager") (eq $tls.workerCertificates "perNode") (eq .Values.worker.kind "DaemonSet") }}
{{- fail "tls.workerCertificates: perNode is not possible with tls.mode certManager and worker.kind DaemonSet: a DaemonSet's nodes are named as their machines, and cert-manager's csi-driver knows the pod's name only; use shared, or kind StatefulSet, or tls.mode secret with NODE.crt and NODE.key of each machine" }}
{{- end }}
{{- end }}
{{- end -}}
