#!/usr/bin/env bash
# Reward models of the ablations (Table 2), on A100 80 GB, four to a node.
#
#   once:    replicate fetch table2 --profile paper   (on the login node, with network)
#   before:  sbatch slurm/ablation_sae_8b.sh
#   this:    sbatch slurm/ablation_reward_8b.sh   (account and partition: -A, -p, or SBATCH_ACCOUNT, SBATCH_PARTITION)
#   then:    sbatch slurm/ablation_score.sh
#
# The jobs, with every value and its key: replicate plan table2 --profile paper --json
#   task 0: reward model random-init, seed 0
#   task 1: reward model random-init-matched, seed 0
#   task 2: reward model scalar-trunc, seed 0
#   task 3: reward model scalar-full, seed 0
#   task 4: reward model token-level, seed 0
#   task 5: reward model token-level-matched, seed 0
#   task 6: reward model sarm-4b, seed 0
# Written by `replicate slurm write` from slurm/template.sh.j2 and slurm/clusters; changes here are lost.
#SBATCH --job-name=sarm-ablation-reward-8b
#SBATCH --array=0-6
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gres=gpu:a100:4
#SBATCH --cpus-per-task=48
#SBATCH --mem=256G
#SBATCH --time=1-00:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%A_%a.out
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
job="${SLURM_ARRAY_JOB_ID:?this is a job array: submit it with sbatch}_${SLURM_ARRAY_TASK_ID}"

# Numbers of another job, from inside which this one was submitted. A step has what its own job has; srun refuses, or obeys, a second word.
unset SLURM_MEM_PER_CPU SLURM_MEM_PER_GPU SLURM_MEM_PER_NODE SLURM_CPUS_PER_GPU SLURM_GPUS SLURM_GPUS_PER_SOCKET SLURM_GPUS_PER_TASK \
  SLURM_NTASKS_PER_GPU SLURM_NTASKS_PER_TRES SLURM_TRES_PER_TASK SLURM_CPU_BIND

# Where things are, and what builds an input that is missing.
export SARM_STORE="${SARM_STORE:-$PWD/artifacts}"
export SARM_COMMAND='replicate fetch table2 --profile paper'
export PATH="${SARM_VENV:-$PWD/.venv}/bin":"$PATH"
export NCCL_DEBUG=WARN
export TORCH_NCCL_ASYNC_ERROR_HANDLING=1
# A node must not ask the network: what is missing fails at once.
export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 TRANSFORMERS_OFFLINE=1 TOKENIZERS_PARALLELISM=false
export OMP_NUM_THREADS=$(( ${SLURM_CPUS_PER_TASK:-48} / 4 ))
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
replicate slurm request ablation_reward_8b --cluster a100 --profile "${SARM_PROFILE:-paper}" --store "$SARM_STORE" --task "$SLURM_ARRAY_TASK_ID" > "$job_dir/request.json"

# One task a node; torchrun starts one process a GPU. Quoted singly: expanded on each node, not here.
export MASTER_ADDR=127.0.0.1
export MASTER_PORT=$(( 20000 + SLURM_JOB_ID % 20000 ))
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-48}" SARM_REQUEST="$job_dir/request.json"
# --export: a site's SBATCH_EXPORT=NONE would take what is exported here from the step as well.
# shellcheck disable=SC2016
srun --nodes=1 --ntasks=1 --export=ALL --kill-on-bad-exit=1 --wait=120 bash -c '
  exec torchrun --nnodes="$SLURM_JOB_NUM_NODES" --nproc-per-node=4 --node-rank="$SLURM_NODEID" \
    --master-addr="$MASTER_ADDR" --master-port="$MASTER_PORT" --max-restarts=0 \
    -m sarm.jobs "$SARM_REQUEST" --store "$SARM_STORE" --command "$SARM_COMMAND"' >> "$job_dir/events.jsonl" &
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
