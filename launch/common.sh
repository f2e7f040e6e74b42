# Sourced by the scripts beside it: how they read flags, print what they would do, and tell a mistake.
# shellcheck shell=bash

# The checkout.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# What a script understands. Flags, without their dashes, set the variables of their names: `words` to any text, `wholes`
# to a positive whole number, `switches` to true. `places` are the variables of the words that are no flags, in order.
words=() wholes=() switches=() places=()
dry_run=false
# What comes after --, for convmixer_jax.main.
arguments=()

say() {
  printf '%s\n' "$*" >&2
}

# One line, exit code 2: as the commands of convmixer_jax tell a mistake.
fail() {
  local told=$*
  say "error: ${told//[[:cntrl:]]/?}"
  exit 2
}

((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 501)) || fail "bash $BASH_VERSION is too old: 5.1 is needed"

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

# is_among WORD LIST...
is_among() {
  local each
  for each in "${@:2}"; do
    [[ $each != "$1" ]] || return 0
  done
  return 1
}

# parse WORD... reads a script's command line: --flag VALUE, --flag=VALUE, words for `places`, -- and `arguments`.
parse() {
  local word flag joined
  while (($#)); do
    word=$1 joined=false
    shift
    if [[ $word == --?*=* ]]; then
      joined=true
      set -- "${word#*=}" "$@"
      word=${word%%=*}
    fi
    flag=${word#--}
    flag=${flag//-/_}
    if [[ $word == --help || $word == -h ]]; then
      show_help
      exit 0
    elif [[ $word == -- ]]; then
      arguments=("$@")
      return
    elif [[ $word == --* ]] && is_among "$flag" "${words[@]}" "${wholes[@]}"; then
      is_among "$flag" "${words[@]}" || whole "$word" "$@"
      value "$word" "$@"
      printf -v "$flag" %s "$1"
      shift
    elif [[ $word == --* ]] && ! $joined && is_among "$flag" dry_run "${switches[@]}"; then
      printf -v "$flag" true
    elif [[ $word != -* ]] && ((${#places[@]})); then
      printf -v "${places[0]}" %s "$word"
      places=("${places[@]:1}")
    elif $joined; then
      unknown "$word=$1"
    else
      unknown "$word"
    fi
  done
}

need_program() {
  $dry_run || command -v "$1" >/dev/null || fail "$1 is not installed here: $2"
}

need_arguments() {
  ((${#arguments[@]})) || fail "no flags for convmixer_jax.main: they come after --, such as -- --config configs/digits.py"
}

# need_name NAME LENGTH checks a name for Google Cloud or Kubernetes.
need_name() {
  [[ $1 =~ ^[a-z]([-a-z0-9]*[a-z0-9])?$ && ${#1} -le $2 ]] ||
    fail "NAME is '$1': at most $2 small letters, digits and - are accepted, a letter first and no - at the end"
}

# Takes "gs://NAME/" for NAME, too.
# https://cloud.google.com/storage/docs/buckets#naming
need_bucket_name() {
  bucket=${bucket#gs://}
  bucket=${bucket%/}
  [[ $bucket =~ ^[a-z0-9]([-_.a-z0-9]*[a-z0-9])?$ ]] ||
    fail "--bucket is '$bucket': the name of a bucket is needed, without a path"
}

# need_workdir_in FOLDER WHY checks that --workdir, among the arguments, lies in a folder that all hosts share.
need_workdir_in() {
  local index workdir=''
  for index in "${!arguments[@]}"; do
    case ${arguments[index]} in
      --workdir) workdir=${arguments[index + 1]-} ;;
      --workdir=*) workdir=${arguments[index]#*=} ;;
    esac
  done
  [[ $workdir == "$1"/?* && /$workdir/ != */../* ]] ||
    fail "--workdir is '$workdir': it must lie in $1/, such as --workdir $1/cifar10: $2"
}

# What a slice gets is the last commit.
need_commit() {
  command -v git >/dev/null || fail "git is not installed here: it packs what is copied"
  git -C "$root" rev-parse --verify --quiet HEAD >/dev/null 2>&1 || fail "$root is no git checkout: nothing to copy from"
}
