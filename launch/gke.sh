#!/usr/bin/env bash
# Writes the Kubernetes objects of a run on GKE: a JobSet with one pod for each host.
#
#   launch/gke.sh tpu NAME --image IMAGE --type v4-32 --bucket B -- --config ... --workdir /runs/NAME | kubectl apply -f -
#   launch/gke.sh gpu NAME --image IMAGE --nodes 4 --gpus 8 --claim C -- FLAGS OF convmixer_jax.main | kubectl apply -f -
#
#   --image IMAGE      has this package and its environment: docker build -f launch/gke/Dockerfile --build-arg EXTRA=tpu .
#   --bucket B         mounted at /runs by the Cloud Storage FUSE driver; needs --service_account
#   --claim C          or a PersistentVolumeClaim, ReadWriteMany, mounted there
#   --service_account S   Kubernetes's, which may write to the bucket
#   --restarts N       how often the JobSet begins again after 75, 76, a lost pod or host (default 20)
#   --namespace N      --spot: on spot machines
#   --apply            do not print, but hand to kubectl; with --dry-run print that command
#   tpu: --type T      v4-16 ... v4-128, v5litepod-16 ... v5litepod-256
#   gpu: --nodes N, --gpus G (of each node), --accelerator A, such as nvidia-h100-80gb (default: any)
#
# 0 ends the JobSet well; 1, 2 and 74 fail it; anything else begins again, from the newest checkpoint in the workdir.
# The cluster needs JobSet: https://jobset.sigs.k8s.io/docs/installation/
# TPUs: https://cloud.google.com/kubernetes-engine/docs/how-to/tpus  GPUs: .../how-to/gpus
# Bucket: https://cloud.google.com/kubernetes-engine/docs/how-to/cloud-storage-fuse-csi-driver-setup
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/common.sh
source "$root/launch/common.sh"

kind=${1:-}
shift || true
case $kind in
  --help | -h) show_help; exit 0 ;;
  tpu | gpu) ;;
  '') fail "tpu or gpu? (--help shows all)" ;;
  *) unknown "$kind" ;;
esac
name='' image='' type='' bucket='' claim='' account='' namespace=default restarts=20 nodes='' gpus='' accelerator=''
spot=false apply=false arguments=()
while (($#)); do
  case $1 in
    --help | -h) show_help; exit 0 ;;
    --dry-run) dry_run=true ;;
    --apply) apply=true ;;
    --spot) spot=true ;;
    --image) value "$@"; image=$2; shift ;;
    --type) value "$@"; type=$2; shift ;;
    --bucket) value "$@"; bucket=${2#gs://}; shift ;;
    --claim) value "$@"; claim=$2; shift ;;
    --service_account) value "$@"; account=$2; shift ;;
    --namespace) value "$@"; namespace=$2; shift ;;
    --restarts) whole "$@"; restarts=$2; shift ;;
    --nodes) whole "$@"; nodes=$2; shift ;;
    --gpus) whole "$@"; gpus=$2; shift ;;
    --accelerator) value "$@"; accelerator=$2; shift ;;
    --) shift; arguments=("$@"); break ;;
    -*) unknown "$1" ;;
    *) [[ -z $name ]] || unknown "$1"; name=$1 ;;
  esac
  shift
done

dns='^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$'
[[ -n $name ]] || fail "which name? launch/gke.sh $kind NAME --image IMAGE ..."
[[ $name =~ $dns ]] || fail "NAME is '$name': at most 40 small letters, digits and - are accepted"
[[ $namespace =~ ^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$ ]] || fail "--namespace is '$namespace': small letters, digits and -"
[[ -n $image ]] || fail "--image is missing (--help says how one is built)"
[[ -n $bucket || -n $claim ]] || fail "--bucket or --claim is missing: the hosts share the workdir"
[[ -z $bucket || -z $claim ]] || fail "--bucket and --claim exclude each other: both would be /runs"
[[ $bucket != */* ]] || fail "--bucket is '$bucket': the name of a bucket is needed, without a path"
[[ -z $bucket || -n $account ]] || fail "--service_account is missing: pods need one that may write to the bucket"
((${#arguments[@]})) || fail "no flags for convmixer_jax.main: they come after --, such as -- --config configs/digits.py"
[[ " ${arguments[*]} " == *" --workdir"[\ =]/runs/* ]] ||
  fail "--workdir must lie in /runs/, such as --workdir /runs/$name: pods take their disks with them"

for text in "$image" "$bucket" "$claim" "$account" "$accelerator" "${arguments[@]}"; do
  [[ $text != *[[:cntrl:]]* ]] || fail "a line break or control character in '${text//[[:cntrl:]]/?}'"
done

# quote TEXT prints it as a string of JSON, which YAML reads as that, too.
quote() {
  local text=${1//\\/\\\\}
  printf '"%s"' "${text//\"/\\\"}"
}

# The flags as a list; Kubernetes would replace $(NAME), and takes $$ for a $.
flags() {
  local argument list=''
  for argument in "${arguments[@]}"; do
    argument=$(quote "${argument//\$(/\$\$(}")
    list+="${list:+, }$argument"
  done
  printf '[%s]' "$list"
}

# Accelerator and topology of a type, of hosts with four chips each.
# https://cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus
slice() {
  case $1 in
    v4-16) echo tpu-v4-podslice 2x2x2 ;;
    v4-32) echo tpu-v4-podslice 2x2x4 ;;
    v4-64) echo tpu-v4-podslice 2x4x4 ;;
    v4-128) echo tpu-v4-podslice 4x4x4 ;;
    v5litepod-16) echo tpu-v5-lite-podslice 4x4 ;;
    v5litepod-32) echo tpu-v5-lite-podslice 4x8 ;;
    v5litepod-64) echo tpu-v5-lite-podslice 8x8 ;;
    v5litepod-128) echo tpu-v5-lite-podslice 8x16 ;;
    v5litepod-256) echo tpu-v5-lite-podslice 16x16 ;;
  esac
}

topology=''
if [[ $kind == tpu ]]; then
  [[ -n $type ]] || fail "--type is missing, such as --type v4-32"
  read -r accelerator topology <<<"$(slice "$type")"
  [[ -n $topology ]] || fail "--type is '$type': v4-16 ... v4-128 or v5litepod-16 ... v5litepod-256 are known"
  nodes=$((${topology//x/*} / 4))
else
  [[ -n $nodes ]] || fail "--nodes is missing"
  [[ -n $gpus ]] || fail "--gpus is missing: how many each node has"
fi

selector=()
if [[ $kind == tpu ]]; then
  selector+=("cloud.google.com/gke-tpu-accelerator: $accelerator" "cloud.google.com/gke-tpu-topology: $topology")
elif [[ -n $accelerator ]]; then
  selector+=("cloud.google.com/gke-accelerator: $(quote "$accelerator")")
fi
$spot && selector+=('cloud.google.com/gke-spot: "true"')
nodes_wanted='{}'
if ((${#selector[@]})); then
  printf -v nodes_wanted '%s, ' "${selector[@]}"
  nodes_wanted="{${nodes_wanted%, }}"
fi

annotations='{}' volume="{name: runs, persistentVolumeClaim: {claimName: $(quote "$claim")}}"
if [[ -n $bucket ]]; then
  annotations='{gke-gcsfuse/volumes: "true"}'
  # A checkpoint is published by renaming its folder, which gcsfuse does for as many files as it is told to.
  attributes="{bucketName: $(quote "$bucket"), mountOptions: \"implicit-dirs,rename-dir-limit=100000\"}"
  volume="{name: runs, csi: {driver: gcsfuse.csi.storage.gke.io, volumeAttributes: $attributes}}"
fi

text=$(<"$root/launch/gke/$kind.yaml")
fill() {
  text=${text//"@$1@"/"$2"}
}
fill NAME "$name"
fill NAMESPACE "$namespace"
fill HOSTS "$nodes"
fill RESTARTS "$restarts"
fill GPUS "$gpus"
fill ANNOTATIONS "$annotations"
fill SELECTOR "$nodes_wanted"
fill SERVICE_ACCOUNT "$(quote "${account:-default}")"
fill VOLUME "$volume"
fill IMAGE "$(quote "$image")"
fill FLAGS "$(flags)" # last: nothing in it is a mark of ours

if ! $apply; then
  printf '%s\n' "$text"
elif $dry_run; then
  printf "kubectl apply -f - <<'YAML'\n%s\nYAML\n" "$text"
else
  need_program kubectl "https://kubernetes.io/docs/tasks/tools/"
  kubectl apply -f - <<<"$text"
fi
