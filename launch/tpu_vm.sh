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
#   --prepare FILE shell commands that every host runs before it is set up, such as those that install gcsfuse
#   --yes          do not ask                   --dry-run      print the commands and run nothing
#
# What is copied is the last commit of this checkout. The hosts find each other (convmixer_jax/cluster.py).
# Types, zones and versions: https://cloud.google.com/tpu/docs/regions-zones and /tpu/docs/runtimes
# The commands: https://cloud.google.com/sdk/gcloud/reference/compute/tpus/tpu-vm
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

command='' name='' zone='' project='' type='' version='' bucket='' prepare='' spot=false yes=false
places=(command name) words=(zone project type version bucket prepare) switches=(spot yes)
parse "$@"
case $command in
  create | setup | run | attach | logs | status | stop | delete) ;;
  '') fail "which command? (--help shows all)" ;;
  *) unknown "$command" ;;
esac
[[ -n $name ]] || fail "which slice? launch/tpu_vm.sh $command NAME --zone ZONE"
need_name "$name" 63
[[ -n $zone ]] || fail "--zone is missing, such as --zone us-central2-b"
[[ -z $bucket ]] || need_bucket_name
[[ -z $prepare || -r $prepare ]] || fail "--prepare is '$prepare': there is no such file to read"
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

# What is left to do when this script ends, however it does.
scratch='' unfinished=''
leave() {
  [[ -z $scratch ]] || rm -rf "$scratch"
  [[ -z $unfinished ]] || say "error: $unfinished"
}
trap leave EXIT

copy() {
  local archive=/tmp/checkout.tar.gz
  [[ -z $(git -C "$root" status --porcelain --untracked-files=no) ]] ||
    say "warning: changes that are not committed are not copied"
  if ! $dry_run; then
    scratch=$(mktemp -d)
    archive=$scratch/checkout.tar.gz
  fi
  run git -C "$root" archive --format=tar.gz --output="$archive" HEAD
  tpu scp "$archive" "$name:checkout.tar.gz" --worker=all
  tpu ssh "$name" --worker=all --command='mkdir -p convmixer_jax && tar xzf checkout.tar.gz -C convmixer_jax'
  [[ -z $prepare ]] || tpu ssh "$name" --worker=all --command="$(<"$prepare")"
  on all setup ${bucket:+--bucket "$bucket"}
}

case $command in
  create)
    [[ -n $type ]] || fail "--type is missing, such as --type v4-32"
    [[ -n $version ]] || fail "--version is missing, such as --version tpu-ubuntu2204-base"
    need_commit
    extra=()
    $spot && extra=(--spot)
    tpu create "$name" --accelerator-type="$type" --version="$version" "${extra[@]}"
    unfinished="$name is there, and costs, but is not ready: launch/tpu_vm.sh setup tries again, delete ends it"
    copy
    unfinished=''
    ;;
  setup) need_commit; copy ;;
  run)
    need_arguments
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
