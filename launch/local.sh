#!/usr/bin/env bash
# Runs N processes on this machine that train as one, to try what several hosts do.
#
#   launch/local.sh N [--devices M] [--dry-run] -- FLAGS OF convmixer_jax.main
#   launch/local.sh 2 -- --config configs/digits.py
#
#   --devices M   virtual CPU devices of each process (default 1)
#   --dry-run     print the commands and run nothing
#
# Each line of output begins with the number of its process. SIGTERM and SIGINT go on to all of them, as does a closed
# terminal: they save and end. The exit code is the first that is not 0; a process that JAX aborted because another was lost counts as 76.
# Once one has failed, those that do not end within GRACE seconds (default 60) are stopped.
# $PYTHON is the interpreter (default: .venv of this checkout, else python3).
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

count='' devices=1
places=(count) wholes=(devices)
parse "$@"
[[ -n $count ]] || fail "how many processes? launch/local.sh N -- FLAGS (--help shows more)"
whole N "$count"
need_arguments
grace=${GRACE:-60}
whole GRACE "$grace"

python=${PYTHON:-$root/.venv/bin/python}
[[ -n ${PYTHON:-} || -x $python ]] || python=python3
command -v "$python" >/dev/null || fail "PYTHON is '$python': there is no such program"
if $dry_run; then
  port=12345
else
  port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
fi
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
variables=(JAX_PLATFORMS=cpu "JAX_NUM_CPU_DEVICES=$devices")
command=("$python" -m convmixer_jax.main "${arguments[@]}" "--coordinator=127.0.0.1:$port" "--num_processes=$count")

# What the reader of a terminal interrupts is this script alone; the last lines are still to be read.
prefix() {
  trap '' INT TERM HUP
  exec sed -u "s/^/[$1] /"
}

set -m # each process leads a group of its own: Ctrl-C reaches it once, from here
pids=()
exec 3>&2 2>/dev/null # bash's own words on jobs that a signal ended are source lines; the loop below tells it
for ((index = 0; index < count; index++)); do
  if $dry_run; then
    quoted env "${variables[@]}" "${command[@]}" "--process_id=$index"
  else
    env "${variables[@]}" "${command[@]}" "--process_id=$index" \
      > >(prefix "$index") 2> >(prefix "$index" >&3) </dev/null &
    pids+=($!)
  fi
done
$dry_run && exit 0

forward() {
  kill "-$1" "${pids[@]}" 2>/dev/null || true
}
trap 'forward TERM' TERM HUP
trap 'forward INT' INT

# In a group of its own, which ends with this script: a process that waits for a lost one may do so for long.
stop_later() {
  sleep "$grace"
  forward TERM
  sleep 10
  forward KILL
}

# By looking, not by `wait -n`: of two processes that end at once it may tell one only, and wait for ever.
first=0 stopper='' left=$count
while ((left)); do
  for index in "${!pids[@]}"; do
    kill -0 "${pids[index]}" 2>/dev/null && continue
    code=0
    wait "${pids[index]}" 2>/dev/null || code=$?
    unset "pids[index]"
    left=$((left - 1))
    ((code <= 128 || code > 192)) || say "[$index] was ended by SIG$(kill -l "$code")" 2>&3
    ((code == 134)) && code=76
    ((first)) || first=$code
  done
  ((left == 0)) && break
  if ((first)) && [[ -z $stopper ]]; then
    stop_later &
    stopper=$!
  fi
  sleep 0.2 &
  wait $! || true # which a signal ends, so that it goes on at once
done
[[ -z $stopper ]] || kill -- "-$stopper" 2>/dev/null || true
exit "$first"
