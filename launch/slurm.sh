#!/usr/bin/env bash
# Writes the batch script of a run on a SLURM cluster with GPUs.
#
#   launch/slurm.sh --nodes 4 --gpus 8 [--per node|gpu] -- --config configs/cifar10.py --workdir /shared/runs/cifar10
#
#   --nodes N, --gpus G   G GPUs on each of N nodes
#   --per node|gpu        one process for each node (default), which drives all its GPUs, or for each GPU
#   --name NAME           of the job (default convmixer)     --time T         limit, such as 12:00:00
#   --partition P         --account A                        --restarts N     how often it is requeued (default 20)
#   --python P            interpreter (default: .venv of this checkout); the checkout and --workdir must be on a disk
#                         that all nodes see
#   --submit              do not print, but hand to sbatch; with --dry-run print that command
#
# The processes find each other (convmixer_jax/cluster.py). 60 s before the time limit they get SIGTERM, save and end
# with 75; then, and after 76 or a lost process, the job is queued again and goes on from its newest checkpoint.
# https://slurm.schedmd.com/sbatch.html
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

nodes='' gpus='' per=node name=convmixer time='' partition='' account='' restarts=20 python=$root/.venv/bin/python
submit=false
words=(per name time partition account python) wholes=(nodes gpus restarts) switches=(submit)
parse "$@"
[[ -n $nodes ]] || fail "--nodes is missing"
[[ -n $gpus ]] || fail "--gpus is missing: how many each node has"
[[ $per == node || $per == gpu ]] || fail "--per is '$per': node or gpu"
for flag in name time partition account; do
  # They stand in comments of the script, where nothing can be quoted.
  [[ ${!flag} =~ ^[-A-Za-z0-9_.:,]*$ ]] || fail "--$flag is '${!flag}': letters, digits and - _ . : , are accepted"
done
need_arguments

tasks=1
[[ $per == node ]] || tasks=$gpus

script() {
  cat <<BATCH
#!/usr/bin/env bash
#SBATCH --job-name=$name
#SBATCH --nodes=$nodes
#SBATCH --ntasks-per-node=$tasks
#SBATCH --gpus-per-node=$gpus
#SBATCH --signal=TERM@60
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
BATCH
  [[ -z $time ]] || echo "#SBATCH --time=$time"
  [[ -z $partition ]] || echo "#SBATCH --partition=$partition"
  [[ -z $account ]] || echo "#SBATCH --account=$account"
  cat <<BATCH
set -euo pipefail
cd $(quoted "$root")
code=0
srun --label --kill-on-bad-exit=0 $(quoted "$python" -m convmixer_jax.main "${arguments[@]}") || code=\$?
# Of several codes srun gives the highest; from 128 on a process was ended by a signal, as JAX does it with the others
# when one is lost.
if ((code == 75 || code == 76 || code >= 128)) && ((\${SLURM_RESTART_COUNT:-0} < $restarts)); then
  scontrol requeue "\$SLURM_JOB_ID"
fi
exit "\$code"
BATCH
}

if ! $submit; then
  script
elif $dry_run; then
  printf "sbatch <<'SCRIPT'\n%s\nSCRIPT\n" "$(script)"
else
  need_program sbatch "run this where SLURM's commands are"
  script | sbatch
fi
