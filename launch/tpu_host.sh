#!/usr/bin/env bash
# What tpu_vm.sh does on each host of a Cloud TPU slice; it is copied there with the checkout that it lies in.
#
#   launch/tpu_host.sh setup [--bucket NAME]     make the environment; mount the bucket at bucket/ of the checkout
#   launch/tpu_host.sh run FLAGS                 start convmixer_jax.main so that it outlives the connection
#   launch/tpu_host.sh status                    "running", "ended CODE", "lost" (killed, rebooted) or "never started"
#   launch/tpu_host.sh stop                      SIGTERM: it saves and ends with 75
#   launch/tpu_host.sh log [-f]                  the log's last lines; -f goes on with what comes
#
# With --dry-run before the command: print what would be done and do nothing.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
log=$root/run.log pid_file=$root/run.pid code_file=$root/run.code

# Python 3.11 or 3.12: the images for TPUs may have neither.
find_python() {
  local name
  for name in python3.12 python3.11; do
    if command -v "$name" >/dev/null && "$name" -c 'import ensurepip, venv' 2>/dev/null; then
      command -v "$name"
      return
    fi
  done
  python3 -m pip install --quiet --user "$(sed -n 's/^UV := //p' "$root/Makefile")" >&2
  python3 -m uv python install --quiet 3.12 >&2
  python3 -m uv python find 3.12
}

# https://cloud.google.com/storage/docs/cloud-storage-fuse/cli-options
# A checkpoint is published by renaming its folder, which gcsfuse does for as many files as it is told to.
mount_bucket() {
  mountpoint -q "$root/bucket" && return
  command -v gcsfuse >/dev/null || run sudo apt-get install --yes --quiet gcsfuse ||
    fail "gcsfuse is not installed: --prepare FILE with https://cloud.google.com/storage/docs/cloud-storage-fuse/install"
  run mkdir -p "$root/bucket"
  run gcsfuse --implicit-dirs --rename-dir-limit=100000 "$1" "$root/bucket"
}

setup() {
  local bucket=''
  words=(bucket)
  parse "$@"
  [[ -z $bucket ]] || need_bucket_name
  need_program make "sudo apt-get install make"
  if $dry_run; then
    run make -C "$root" env PYTHON=...
  else
    make -C "$root" env PYTHON="$(find_python)"
  fi
  run "$root/.venv/bin/python" -m pip install --quiet -c "$root/requirements.txt" 'jax[tpu]'
  [[ -z $bucket ]] || mount_bucket "$bucket"
}

# After a reboot another process may have the number.
is_running() {
  [[ -f $pid_file && ! -f $code_file ]] && grep -qsa convmixer_jax.main "/proc/$(<"$pid_file")/cmdline"
}

start() {
  arguments=("$@")
  need_arguments
  is_running && fail "a run is going on here already: stop it first"
  $dry_run || [[ -x $root/.venv/bin/python ]] || fail "there is no environment here yet: launch/tpu_vm.sh setup makes it"
  $dry_run && { quoted "$root/.venv/bin/python" -m convmixer_jax.main "$@"; return; }
  rm -f "$code_file" "$pid_file"
  # shellcheck disable=SC2016 # the inner shell's variables
  setsid nohup bash -c '
    cd "$1"; shift
    .venv/bin/python -m convmixer_jax.main "$@" & echo "$!" >run.pid
    code=0; wait "$!" || code=$?
    echo "$code" >run.code.tmp; mv run.code.tmp run.code' run "$root" "$@" </dev/null >>"$log" 2>&1 &
}

status() {
  if [[ -f $code_file ]]; then
    echo "ended $(<"$code_file")"
  elif is_running; then
    echo running
  elif [[ -f $pid_file ]]; then
    echo lost
  else
    echo "never started"
  fi
}

[[ ${1:-} == --dry-run ]] && { dry_run=true; shift; }
command=${1:-}
shift || true
case $command in
  --help | -h) show_help ;;
  setup) setup "$@" ;;
  run) start "$@" ;;
  status) status ;;
  stop) is_running || fail "no run is going on here"; run kill -TERM "$(<"$pid_file")" ;;
  log)
    [[ -f $log ]] || fail "there is no log yet: $log"
    if [[ ${1:-} == -f ]]; then run tail -n 100 -F "$log"; else run tail -n 100 "$log"; fi
    ;;
  '') fail "which command? (--help shows all)" ;;
  *) unknown "$command" ;;
esac
