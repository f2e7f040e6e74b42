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
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

kind='' name='' image='' type='' bucket='' claim='' service_account='' namespace=default
restarts=20 nodes='' gpus='' accelerator='' spot=false apply=false
places=(kind name) switches=(apply spot) wholes=(restarts nodes gpus)
words=(image type bucket claim service_account namespace accelerator)
parse "$@"

case $kind in
  tpu | gpu) ;;
  '') fail "tpu or gpu? (--help shows all)" ;;
  *) unknown "$kind" ;;
esac
[[ -n $name ]] || fail "which name? launch/gke.sh $kind NAME --image IMAGE ..."
need_name "$name" 40
[[ $namespace =~ ^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$ ]] || fail "--namespace is '$namespace': small letters, digits and -"
[[ -n $image ]] || fail "--image is missing (--help says how one is built)"
[[ -n $bucket || -n $claim ]] || fail "--bucket or --claim is missing: the hosts share the workdir"
[[ -z $bucket || -z $claim ]] || fail "--bucket and --claim exclude each other: both would be /runs"
[[ -z $bucket ]] || need_bucket_name
[[ -z $bucket || -n $service_account ]] || fail "--service_account is missing: pods need one that may write to the bucket"
need_arguments
need_workdir_in /runs "pods take their disks with them"

for text in "$image" "$bucket" "$claim" "$service_account" "$accelerator" "${arguments[@]}"; do
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
fill SERVICE_ACCOUNT "$(quote "${service_account:-default}")"
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
