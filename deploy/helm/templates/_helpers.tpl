{{- define "sailfish.labels" -}}
app.kubernetes.io/name: sailfish
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .role }}
{{- end -}}

{{- define "sailfish.name" -}}
{{ .root.Release.Name }}-{{ .role }}
{{- end -}}

{{/* What every pod has, whatever its role: no right beyond that of an ordinary user, no file that it writes. */}}
{{- define "sailfish.pod" -}}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
automountServiceAccountToken: false
# Kubernetes would set variables such as SAILFISH_ROUTER_PORT, which are no keys of the configuration.
enableServiceLinks: false
terminationGracePeriodSeconds: {{ .root.Values.terminationGracePeriodSeconds }}
nodeSelector: {{ toJson .root.Values.nodeSelector }}
tolerations: {{ toJson .root.Values.tolerations }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  seccompProfile: {{ toJson .root.Values.seccompProfile }}
# Nodes of one role are on different machines if that is possible.
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector: { matchLabels: {{ include "sailfish.labels" . | fromYaml | toJson }} }
{{- end -}}

{{/* What every container has. `port` is the one with /healthz and /readyz. */}}
{{- define "sailfish.container" -}}
name: {{ .role }}
image: {{ printf "%s:%s" .root.Values.image.repository (default .root.Chart.AppVersion .root.Values.image.tag) | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
envFrom:
  - secretRef: { name: {{ index .root.Values.secrets .role }} }
env:
  - name: POD_IP
    valueFrom: { fieldRef: { fieldPath: status.podIP } }
# SIGTERM begins the drain. A second one would end it, so this only waits.
lifecycle:
  preStop: { exec: { command: [sleep, {{ .root.Values.preStopSeconds | quote }}] } }
livenessProbe:
  httpGet: { path: /healthz, port: {{ .port }} }
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: { path: /readyz, port: {{ .port }} }
  periodSeconds: 5
  timeoutSeconds: 8
  failureThreshold: 1
resources: {{ toJson (index .root.Values .role).resources }}
{{- end -}}

{{/* --set flags of the values. */}}
{{- define "sailfish.settings" -}}
{{- if ne .role "backend" }}
{{- printf " --set %s" (squote (printf "cluster.tls=%s" .root.Values.links.tls)) }}
{{- end }}
{{- range $key, $value := index .root.Values.settings .role }}
{{- printf " --set %s" (squote (printf "%s=%s" $key (toString $value))) }}
{{- end }}
{{- end -}}

{{/* The addresses of the bridges: each has a service, whose address stays. A node waits until it can find them. */}}
{{- define "sailfish.find-bridges" -}}
bridges=
{{- range $ordinal := until (int .root.Values.bridge.replicas) }}
until ip=$(getent ahostsv4 {{ $.root.Release.Name }}-bridge-{{ $ordinal }} | cut -d' ' -f1 | head -n1) && [ -n "$ip" ]; do sleep 1; done
bridges="$bridges,\"$ip:5400\""
{{- end }}
bridges=${bridges#,}
{{- end -}}

{{- define "sailfish.disruption" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "sailfish.name" . }}
  labels: {{ include "sailfish.labels" . | fromYaml | toJson }}
spec:
  maxUnavailable: 1
  selector: { matchLabels: {{ include "sailfish.labels" . | fromYaml | toJson }} }
{{- end -}}
