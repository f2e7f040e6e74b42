#!/usr/bin/env bash
# A Cloud TPU slice from its creation to its deletion, all hosts at once.
#
#   launch/tpu_vm.sh create NAME --zone ZONE --type v4-32 --version tpu-ubuntu2204-base [--bucket B] [--spot]
#   launch/tpu_vm.sh run    NAME --zone ZONE -- --config configs/cifar10.py --workdir bucket/cifar10
#   launch/tpu_vm.sh attach NAME --zone ZONE          follow host 0's log; Ctrl-C ends the following, not the run
#   launch/tpu_vm.sh logs   NAME --zone ZONE          the last lines of all hosts
#   launch/tpu_vm.sh status NAME --zone ZONE          the slice's state, and the run's on each host
#   launch/tpu_vm.sh stop   NAME --zone ZONE          SIGTERM: the run saves and ends with 75
#   launch/tpu_vm.sh delete NAME --zone ZONE [--yes]
#   launch/tpu_vm.sh setup  NAME --zone ZONE [--bucket B]     copy the checkout again; `create` does it, too
#
#   --project P    Google Cloud project (default: gcloud's)
#   --zone ZONE    such as us-central2-b        --type T       accelerator type, such as v4-32
#   --version V    the machines' software       --spot         cheaper, and may be taken away at any time
#   --bucket B     bucket that every host sees as bucket/ in its checkout: the workdir of several hosts must be shared
#   --yes          do not ask                   --dry-run      print the commands and run nothing
#
# What is copied is the last commit of this checkout. The hosts find each other (convmixer_jax/cluster.py).
# Types, zones and versions: https://cloud.google.com/tpu/docs/regions-zones and /tpu/docs/runtimes
# The commands: https://cloud.google.com/sdk/gcloud/reference/compute/tpus/tpu-vm
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/common.sh
source "$root/launch/common.sh"

command=${1:-}
shift || true
name='' zone='' project='' type='' version='' bucket='' spot=false yes=false arguments=()
case $command in
  --help | -h) show_help; exit 0 ;;
  create | setup | run | attach | logs | status | stop | delete) ;;
  '') fail "which command? (--help shows all)" ;;
  *) unknown "$command" ;;
esac
while (($#)); do
  case $1 in
    --help | -h) show_help; exit 0 ;;
    --dry-run) dry_run=true ;;
    --spot) spot=true ;;
    --yes) yes=true ;;
    --zone) value "$@"; zone=$2; shift ;;
    --project) value "$@"; project=$2; shift ;;
    --type) value "$@"; type=$2; shift ;;
    --version) value "$@"; version=$2; shift ;;
    --bucket) value "$@"; bucket=${2#gs://}; shift ;;
    --) shift; arguments=("$@"); break ;;
    -*) unknown "$1" ;;
    *) [[ -z $name ]] || unknown "$1"; name=$1 ;;
  esac
  shift
done
[[ -n $name ]] || fail "which slice? launch/tpu_vm.sh $command NAME --zone ZONE"
[[ $name =~ ^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$ ]] || fail "NAME is '$name': small letters, digits and - are accepted"
[[ -n $zone ]] || fail "--zone is missing, such as --zone us-central2-b"
[[ $bucket != */* ]] || fail "--bucket is '$bucket': the name of a bucket is needed, without a path"
[[ $command == run || ${#arguments[@]} -eq 0 ]] || fail "what comes after -- goes with run, not with $command"
need_program gcloud "https://cloud.google.com/sdk/docs/install"

where=(--zone "$zone" ${project:+--project "$project"})
tpu() {
  run gcloud compute tpus tpu-vm "$@" "${where[@]}"
}
# on WORKERS COMMAND... runs launch/tpu_host.sh there, all hosts at the same time.
on() {
  local workers=$1
  shift
  tpu ssh "$name" --worker="$workers" --command="$(quoted bash convmixer_jax/launch/tpu_host.sh "$@")"
}

copy() {
  local archive=/tmp/checkout.tar.gz
  git -C "$root" rev-parse --verify --quiet HEAD >/dev/null || fail "$root is no git checkout: nothing to copy from"
  [[ -z $(git -C "$root" status --porcelain --untracked-files=no) ]] ||
    say "warning: changes that are not committed are not copied"
  if ! $dry_run; then
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    archive=$scratch/checkout.tar.gz
  fi
  run git -C "$root" archive --format=tar.gz --output="$archive" HEAD
  tpu scp "$archive" "$name:checkout.tar.gz" --worker=all
  tpu ssh "$name" --worker=all --command='mkdir -p convmixer_jax && tar xzf checkout.tar.gz -C convmixer_jax'
  on all setup ${bucket:+--bucket "$bucket"}
}

case $command in
  create)
    [[ -n $type ]] || fail "--type is missing, such as --type v4-32"
    [[ -n $version ]] || fail "--version is missing, such as --version tpu-ubuntu2204-base"
    extra=()
    $spot && extra=(--spot)
    tpu create "$name" --accelerator-type="$type" --version="$version" "${extra[@]}"
    copy
    ;;
  setup) copy ;;
  run)
    ((${#arguments[@]})) || fail "no flags for convmixer_jax.main: they come after --, such as -- --config configs/digits.py"
    on all run "${arguments[@]}"
    ;;
  attach) on 0 log -f ;;
  logs) on all log ;;
  status)
    tpu describe "$name" --format='value(state)'
    on all status
    ;;
  stop) on all stop ;;
  delete)
    extra=()
    $yes && extra=(--quiet)
    tpu delete "$name" "${extra[@]}"
    ;;
esac
