#!/usr/bin/env bash
# Waits for a Cloud TPU slice in the queue, trains on it, and begins again where it is taken away, up to N times.
#
#   launch/tpu_queued.sh NAME --zone ZONE --type v4-32 --version tpu-ubuntu2204-base --bucket B [--spot]
#                        [--attempts N] -- --config configs/cifar10.py --workdir bucket/cifar10
#
#   --bucket B     as in tpu_vm.sh: the workdir lies there, so that another slice goes on where the last one stopped
#   --attempts N   how many slices are asked for in all (default 10)
#   --poll S       seconds between two looks (default 60)
#   --keep         do not delete the slice at the end
#   --project P, --spot, --dry-run: as in tpu_vm.sh; --dry-run prints the commands of one attempt that ends well
#
# Slice and queued resource are both called NAME. Started again with the same flags, it goes on watching. Ends with the
# run's exit code; 76 where N attempts were not enough. 75, 76, a lost host and a slice that is suspended, preempted or
# failed make another attempt; 0, 74 and what another attempt would not cure (1, 2) end it, after the last lines of the
# logs. Then, and between attempts, the slice is deleted.
# https://cloud.google.com/tpu/docs/queued-resources
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/common.sh
source "$root/launch/common.sh"

name='' zone='' project='' type='' version='' bucket='' spot=false keep=false attempts=10 poll=60 arguments=()
while (($#)); do
  case $1 in
    --help | -h) show_help; exit 0 ;;
    --dry-run) dry_run=true ;;
    --spot) spot=true ;;
    --keep) keep=true ;;
    --zone) value "$@"; zone=$2; shift ;;
    --project) value "$@"; project=$2; shift ;;
    --type) value "$@"; type=$2; shift ;;
    --version) value "$@"; version=$2; shift ;;
    --bucket) value "$@"; bucket=${2#gs://}; shift ;;
    --attempts) whole "$@"; attempts=$2; shift ;;
    --poll) whole "$@"; poll=$2; shift ;;
    --) shift; arguments=("$@"); break ;;
    -*) unknown "$1" ;;
    *) [[ -z $name ]] || unknown "$1"; name=$1 ;;
  esac
  shift
done
[[ -n $name ]] || fail "which slice? launch/tpu_queued.sh NAME --zone ZONE ..."
[[ $name =~ ^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$ ]] || fail "NAME is '$name': small letters, digits and - are accepted"
for flag in zone type version bucket; do
  [[ -n ${!flag} ]] || fail "--$flag is missing (--help shows an example)"
done
[[ $bucket != */* ]] || fail "--bucket is '$bucket': the name of a bucket is needed, without a path"
((${#arguments[@]})) || fail "no flags for convmixer_jax.main: they come after --, such as -- --config configs/digits.py"
[[ " ${arguments[*]} " == *" --workdir"[\ =]bucket/* ]] ||
  fail "--workdir must lie in bucket/, such as --workdir bucket/$name: a slice takes its disks with it"
need_program gcloud "https://cloud.google.com/sdk/docs/install"

where=(--zone "$zone" ${project:+--project "$project"})
queue() {
  run gcloud compute tpus queued-resources "$@" "${where[@]}"
}
vm() {
  local command=$1 extra=()
  shift
  $dry_run && extra=(--dry-run)
  "$root/launch/tpu_vm.sh" "$command" "$name" "${where[@]}" "${extra[@]}" "$@"
}

# Prints the state of the queued resource; GONE where there is none. Fails where gcloud does, otherwise.
state_of_queue() {
  local found
  found=$(gcloud compute tpus queued-resources list "${where[@]}" \
    --filter="name:$name" --format='csv[no-heading,separator=" "](name.basename(),state.state)') || return 1
  found=$(awk -v name="$name" '$1 == name {print $2}' <<<"$found")
  echo "${found:-GONE}"
}

remove() {
  queue delete "$name" --force --quiet
}

ask() {
  local extra=()
  $spot && extra=(--spot)
  queue create "$name" --node-id="$name" --accelerator-type="$type" --runtime-version="$version" "${extra[@]}"
}

# Returns 0 once the slice is there, 1 where it will not come.
wait_for_slice() {
  local state last=''
  while true; do
    state=$(state_of_queue) || state=UNKNOWN
    [[ $state == "$last" ]] || say "$name: $state"
    last=$state
    case $state in
      ACTIVE) return 0 ;;
      SUSPENDING | SUSPENDED | FAILED | DELETING | GONE) return 1 ;;
    esac
    sleep "$poll"
  done
}

# Reads the hosts' states, a line each, and prints one word: running, idle, or the code that the run ended with.
# As in local.sh, a host that JAX aborted because another was lost counts as 76; so does a lost host.
verdict() {
  awk '
    $1 == "running" {running = 1}
    $1 == "never" {idle = 1}
    $1 == "lost" {lost = 1}
    $1 == "ended" {ended = 1; code = ($2 >= 128) ? 76 : $2; if (code && (!worst || worst == 76)) worst = code}
    END {
      if (running && !worst && !lost) print "running"
      else if (running) print "failing"
      else if (lost) print 76
      else if (!ended) print idle ? "idle" : "unknown"
      else print idle ? 76 : worst + 0
    }'
}

# Prints the code that the run ended with, 76 where the slice was taken away.
watch() {
  local now odd=0
  while true; do
    now=$(state_of_queue) || now=UNKNOWN
    [[ $now == ACTIVE || $now == UNKNOWN ]] || { say "$name: $now"; echo 76; return; }
    # One connection that fails is none; what fails, or hangs on, ten times in a row is lost.
    now=$(vm status 2>/dev/null | verdict) || now=unknown
    case $now in
      running) odd=0 ;;
      failing | unknown | idle) odd=$((odd + 1)); ((odd < 10)) || { echo 76; return; } ;;
      *) echo "$now"; return ;;
    esac
    sleep "$poll"
  done
}

if $dry_run; then
  ask
  vm setup --bucket "$bucket"
  vm run -- "${arguments[@]}"
  vm status
  $keep || remove
  exit 0
fi

for ((attempt = 1; attempt <= attempts; attempt++)); do
  state=$(state_of_queue) || fail "gcloud cannot list the queued resources of $zone: its message is above"
  case $state in
    GONE) say "attempt $attempt of $attempts"; ask ;;
    SUSPENDING | SUSPENDED | FAILED) say "$name: $state, from before"; remove; ask ;;
  esac
  code=76
  if wait_for_slice; then
    if [[ $(vm status 2>/dev/null | verdict) != running ]]; then
      # A slice may be taken away while it is set up: that is an attempt, too.
      { vm setup --bucket "$bucket" && vm run -- "${arguments[@]}"; } >&2 || say "$name could not be set up"
    fi
    code=$(watch)
  fi
  say "attempt $attempt of $attempts ended with $code"
  [[ $code == 75 || $code == 76 ]] || { vm logs >&2 || true; }
  $keep && [[ $code != 75 && $code != 76 ]] || remove
  [[ $code == 75 || $code == 76 ]] || exit "$code"
done
say "error: $attempts attempts were not enough: run again"
exit 76
