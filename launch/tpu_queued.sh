#!/usr/bin/env bash
# Waits for a Cloud TPU slice in the queue, trains on it, and begins again where it is taken away, up to N times.
#
#   launch/tpu_queued.sh NAME --zone ZONE --type v4-32 --version tpu-ubuntu2204-base --bucket B [--spot]
#                        [--attempts N] -- --config configs/cifar10.py --workdir bucket/cifar10
#
#   --prepare FILE as in tpu_vm.sh
#   --bucket B     as in tpu_vm.sh: the workdir lies there, so that another slice goes on where the last one stopped
#   --attempts N   how many slices are asked for in all (default 10)
#   --poll S       seconds between two looks (default 60)
#   --keep         do not delete the slice at the end
#   --project P, --spot, --dry-run: as in tpu_vm.sh; --dry-run prints the commands of one attempt that ends well
#
# Slice and queued resource are both called NAME. Started again with the same flags, it goes on watching. Ends with the
# run's exit code; 76 where N attempts were not enough. 75, 76, a lost host and a slice that is suspended, preempted or
# failed make another attempt; 0, 74 and what another attempt would not cure (1, 2; a slice that could not be set up three
# times) end it, after the last lines of the logs. Then, and between attempts, the slice is deleted.
# https://cloud.google.com/tpu/docs/queued-resources
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

name='' zone='' project='' type='' version='' bucket='' prepare='' spot=false keep=false attempts=10 poll=60
places=(name) words=(zone project type version bucket prepare) wholes=(attempts poll) switches=(spot keep)
parse "$@"
[[ -n $name ]] || fail "which slice? launch/tpu_queued.sh NAME --zone ZONE ..."
need_name "$name" 63
for flag in zone type version bucket; do
  [[ -n ${!flag} ]] || fail "--$flag is missing (--help shows an example)"
done
need_bucket_name
[[ -z $prepare || -r $prepare ]] || fail "--prepare is '$prepare': there is no such file to read"
need_arguments
need_workdir_in bucket "a slice takes its disks with it"
need_program gcloud "https://cloud.google.com/sdk/docs/install"
need_commit

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
setup() {
  vm setup --bucket "$bucket" ${prepare:+--prepare "$prepare"}
}

# Prints the state of the queued resource; GONE where there is none. Fails where gcloud does, otherwise.
state_of_queue() {
  local found
  found=$(gcloud compute tpus queued-resources list "${where[@]}" \
    --filter="name:$name" --format='csv[no-heading,separator=" "](name.basename(),state.state)') || return 1
  found=$(awk -v name="$name" '$1 == name {print $2}' <<<"$found")
  echo "${found:-GONE}"
}

# gcloud's message says why it failed; the slice is looked at again before another attempt.
remove() {
  queue delete "$name" --force --quiet || say "error: $name could not be deleted, and goes on costing while it is there"
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

# A connection may hang for ever.
hosts() {
  local told
  told=$(timeout --kill-after=10 300 "$root/launch/tpu_vm.sh" status "$name" "${where[@]}" 2>/dev/null | verdict) ||
    told=unknown
  echo "$told"
}

# Starts the run, unless it goes on already. Returns 1 where the slice was taken away, 2 where it cannot be set up.
begin() {
  local try
  for try in 1 2 3; do
    [[ $(hosts) != running ]] || return 0
    { setup && vm run -- "${arguments[@]}"; } >&2 && return 0
    say "$name could not be set up (try $try of 3)"
    [[ $(state_of_queue) == ACTIVE ]] || return 1
    sleep "$poll"
  done
  return 2
}

# Prints the code that the run ended with, 76 where the slice was taken away.
watch() {
  local now odd=0
  while true; do
    now=$(state_of_queue) || now=UNKNOWN
    [[ $now == ACTIVE || $now == UNKNOWN ]] || { say "$name: $now"; echo 76; return; }
    # One connection that fails is none; what fails, or hangs on, ten times in a row is lost.
    now=$(hosts)
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
  setup
  vm run -- "${arguments[@]}"
  vm status
  $keep || remove
  exit 0
fi

# What gcloud says between attempts may be wrong for a while; at the beginning it is a mistake.
look() {
  local try
  for try in 1 2 3 4 5 6 7 8 9 10; do
    if state=$(state_of_queue); then
      [[ $state == DELETING ]] || return 0
    else
      ((attempt > 1)) || return 1
    fi
    sleep "$poll"
  done
  [[ $state == DELETING ]]
}

for ((attempt = 1; attempt <= attempts; attempt++)); do
  look || fail "gcloud cannot list the queued resources of $zone: its message is above"
  say "attempt $attempt of $attempts"
  case $state in
    SUSPENDING | SUSPENDED | FAILED) say "$name: $state, from before"; remove; state=GONE ;;
  esac
  code=76
  if [[ $state == GONE ]] && ! ask; then
    ((attempt > 1)) || fail "gcloud does not queue $name: its message is above"
  elif wait_for_slice; then
    begun=0
    begin || begun=$?
    case $begun in
      0) code=$(watch) ;;
      2) code=2 ;;
    esac
  fi
  say "attempt $attempt of $attempts ended with $code"
  [[ $code == 75 || $code == 76 ]] || { vm logs >&2 || true; }
  $keep && [[ $code != 75 && $code != 76 ]] || remove
  [[ $code == 75 || $code == 76 ]] || exit "$code"
done
say "error: $attempts attempts were not enough: run again"
exit 76
