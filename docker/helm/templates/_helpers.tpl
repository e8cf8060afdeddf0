{{- define "pentimento.labels" -}}
app.kubernetes.io/name: pentimento
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "pentimento.selector" -}}
app.kubernetes.io/name: pentimento
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "pentimento.servers" -}}
{{- if .Values.broker.enabled -}}
nats://{{ .Release.Name }}-broker:4222
{{- else -}}
{{- required "broker.servers has the addresses of the broker, where broker.enabled is false" (join "," .Values.broker.servers) -}}
{{- end -}}
{{- end }}

{{/* What all machines are told. */}}
{{- define "pentimento.environment" -}}
- name: PENTIMENTO_CLUSTER
  value: {{ include "pentimento.servers" . | quote }}
- name: PENTIMENTO_IMAGES
  value: {{ .Values.images.place | quote }}
- name: AWS_REGION
  value: {{ .Values.images.region | quote }}
{{- with .Values.images.endpoint }}
- name: AWS_ENDPOINT_URL
  value: {{ . | quote }}
{{- if hasPrefix "http://" . }}
- name: AWS_ALLOW_HTTP
  value: "true"
{{- end }}
{{- end }}
{{- if .Values.models.configMap }}
- name: PENTIMENTO_MODELS
  value: /etc/pentimento/models.toml
{{- end }}
# Health checks and metrics come from the node's own address.
- name: PENTIMENTO_ADMIN_LISTEN
  value: 0.0.0.0:8081
- name: PENTIMENTO_LOG_FORMAT
  value: json
{{- end }}

{{- define "pentimento.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: admin}
  periodSeconds: 5
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: admin}
  periodSeconds: 10
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: admin}
  periodSeconds: 5
{{- end }}

{{- define "pentimento.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 10001
capabilities: {drop: [ALL]}
{{- end }}

{{- define "pentimento.mounts" -}}
- {name: data, mountPath: /data}
- {name: models, mountPath: /models}
- {name: tmp, mountPath: /tmp}
{{- if .Values.models.configMap }}
- {name: catalogue, mountPath: /etc/pentimento, readOnly: true}
{{- end }}
{{- end }}

{{- define "pentimento.volumes" -}}
- name: tmp
  emptyDir: {}
- name: models
  {{- if .Values.models.claim }}
  persistentVolumeClaim: {claimName: {{ .Values.models.claim }}}
  {{- else }}
  emptyDir: {}
  {{- end }}
{{- if .Values.models.configMap }}
- name: catalogue
  configMap: {name: {{ .Values.models.configMap }}}
{{- end }}
{{- end }}
