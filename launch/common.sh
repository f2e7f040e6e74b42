# Sourced by the scripts beside it: how they read flags, print what they would do, and tell a mistake.
# shellcheck shell=bash

dry_run=false

say() {
  printf '%s\n' "$*" >&2
}

# One line, exit code 2: as the commands of convmixer_jax tell a mistake.
fail() {
  say "error: $*"
  exit 2
}

# The comment at the top of the script, which is its help, without the line of the interpreter.
show_help() {
  sed -n '2,/^[^#]/{/^#/!d;s/^# \{0,1\}//;p}' "$0"
}

# quoted WORD... prints a command line that a shell reads as these words again.
quoted() {
  local line
  printf -v line '%q ' "$@"
  printf '%s\n' "${line% }"
}

# run WORD... does a command, or prints it with --dry-run.
run() {
  if $dry_run; then
    quoted "$@"
  else
    "$@"
  fi
}

# value FLAG [VALUE] checks that a flag's value follows it.
value() {
  [[ $# -ge 2 && $2 != --* && -n $2 ]] || fail "$1 needs a value (--help shows all)"
}

# whole FLAG VALUE checks that the value is a positive whole number.
whole() {
  value "$@"
  [[ $2 =~ ^[1-9][0-9]{0,8}$ ]] || fail "$1 is '$2': a positive whole number is needed"
}

unknown() {
  fail "'$1' is not understood (--help shows all; what goes to convmixer_jax.main comes after --)"
}

need_program() {
  $dry_run || command -v "$1" >/dev/null || fail "$1 is not installed here: $2"
}
