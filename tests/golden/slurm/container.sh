#!/usr/bin/env bash
# Written by: replicate table1 --launcher slurm
# count 0 (count/67e8990d823e)
#SBATCH --job-name=sarm-count-67e8990d823e
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=2
#SBATCH --mem=1G
#SBATCH --time=01:00:00
#SBATCH --constraint=gpu80
#SBATCH --exclusive
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%j.out
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
job="${SLURM_JOB_ID:?submit this script with sbatch}"

# Where things are, and what builds an input that is missing.
export SARM_STORE=/store
export SARM_COMMAND='replicate table1 --launcher slurm'
# Code of the site runs as it was written to run, without -e, -u and pipefail; a command of it that fails ends the job in one line.
# shellcheck disable=SC2317
site_failed() {
  local code=$?
  # What fails inside a file that is sourced is that file's own affair.
  if [[ ${BASH_SOURCE[2]:-} ]]; then return 0; fi
  echo "$BASH_COMMAND: exit code $code; mend modules and setup in the file of cluster small" >&2
  exit 7
}
set +eu +o pipefail
trap site_failed ERR
module load apptainer/1.3
export APPTAINERENV_PYTHONPATH=/source
ulimit -c 0
trap - ERR
set -euo pipefail
export NCCL_P2P_DISABLE=1
# A node must not ask the network: what is missing fails at once.
export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 TRANSFORMERS_OFFLINE=1 TOKENIZERS_PARALLELISM=false
export OMP_NUM_THREADS=$(( ${SLURM_CPUS_PER_TASK:-2} / 1 ))
export TRITON_CACHE_DIR="${TMPDIR:-/tmp}/triton-$SLURM_JOB_ID" TORCH_EXTENSIONS_DIR="${TMPDIR:-/tmp}/extensions-$SLURM_JOB_ID"
job_dir="$SARM_STORE/.slurm/jobs/$job"
mkdir -p "$job_dir"
rm -f "$job_dir/stop" "$job_dir/state.json"
export SARM_STOP_FILE="$job_dir/stop" SARM_STATE_FILE="$job_dir/state.json"

# Slurm warns this shell alone (USR1, before the time is over) or everybody (TERM). Both become a file, which reaches every
# process of the job through any launcher.
signalled=0
# Only a warning leads to a requeue: a cancelled job must not come back.
warned=0
# shellcheck disable=SC2317
ask_to_stop() { signalled=1; echo "$1: stop requested $(date -Is)" >&2; : > "$SARM_STOP_FILE"; }
trap 'warned=1; ask_to_stop USR1' USR1
trap 'ask_to_stop TERM' TERM

# What is to be done.
cat > "$job_dir/request.json" << 'REQUEST'
[
{"kind":"count","version":1,"key":"67e8990d823e3e9c9bdfaf9404f44a479370792f066542cbcd3f368ba3729f76","config":{"steps":3,"seed":0,"trouble":"none"},"inputs":{},"resources":{"nodes":1,"processes":1,"gpus":1,"threads":0,"micro_batch_tokens":8192,"zero_stage":0,"offload":"none","activation_checkpointing":false,"hours":1.0,"memory_gb":1.0,"offload_gb":0.0,"checkpoint_minutes":15.0},"locations":{},"label":"count 0","attempt":0}
]
REQUEST

apptainer exec --nv --bind "$PWD" --bind "$APPTAINERENV_PYTHONPATH" --bind "$SARM_STORE" --bind "/scratch" "${SARM_IMAGE:?}" python -m sarm.jobs "$job_dir/request.json" --store "$SARM_STORE" --command "$SARM_COMMAND" --registry make_believe_jobs:MAKE_BELIEVE >> "$job_dir/events.jsonl" &
pid=$!
# A signal ends `wait`, not the job: wait again for its own exit code.
while :; do
  rc=0
  wait "$pid" || rc=$?
  if (( signalled && rc > 128 )); then signalled=0; continue; fi
  break
done
trap - USR1 TERM

# Its exit code may be hidden by torchrun or srun; the state file says what became of it.
state=$(sed -n 's/.*"state": *"\([a-z]*\)".*/\1/p' "$SARM_STATE_FILE" 2> /dev/null || true)
case "$state" in
  done) exit 0 ;;
  checkpointed | interrupted)
    if [[ $state == checkpointed ]] && (( warned && ${SLURM_RESTART_COUNT:-0} < 8 )); then
      if scontrol requeue "$job"; then exit 0; fi
    fi
    echo "stopped ($state); the same command continues" >&2
    exit 75 ;;
  *) exit "$(( rc ? rc : 1 ))" ;;
esac
