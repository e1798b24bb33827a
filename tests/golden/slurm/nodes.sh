#!/usr/bin/env bash
# Written by: replicate table1 --launcher slurm
# count 0 (count/67e8990d823e)
#SBATCH --job-name=sarm-count-67e8990d823e
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=a100:2
#SBATCH --cpus-per-task=4
#SBATCH --mem=1G
#SBATCH --time=01:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%j.out
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
job="${SLURM_JOB_ID:?submit this script with sbatch}"

# Numbers of another job, from inside which this one was submitted. A step has what its own job has; srun refuses, or obeys, a second word.
unset SLURM_MEM_PER_CPU SLURM_MEM_PER_GPU SLURM_MEM_PER_NODE SLURM_CPUS_PER_GPU SLURM_GPUS SLURM_GPUS_PER_SOCKET SLURM_GPUS_PER_TASK \
  SLURM_NTASKS_PER_GPU SLURM_NTASKS_PER_TRES SLURM_TRES_PER_TASK SLURM_CPU_BIND

# Where things are, and what builds an input that is missing.
export SARM_STORE=/store
export SARM_COMMAND='replicate table1 --launcher slurm'
export PATH=/venv/bin:"$PATH"
export PYTHONPATH=/source"${PYTHONPATH:+:$PYTHONPATH}"
# A node must not ask the network: what is missing fails at once.
export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 TRANSFORMERS_OFFLINE=1 TOKENIZERS_PARALLELISM=false
export OMP_NUM_THREADS=$(( ${SLURM_CPUS_PER_TASK:-4} / 2 ))
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
{"kind":"count","version":1,"key":"67e8990d823e3e9c9bdfaf9404f44a479370792f066542cbcd3f368ba3729f76","config":{"steps":3,"seed":0,"trouble":"none"},"inputs":{},"resources":{"nodes":2,"processes":4,"gpus":4,"threads":0,"micro_batch_tokens":8192,"zero_stage":0,"offload":"none","activation_checkpointing":false,"hours":1.0,"memory_gb":1.0,"offload_gb":0.0,"checkpoint_minutes":15.0},"locations":{},"label":"count 0","attempt":0}
]
REQUEST

# One task a node; torchrun starts one process a GPU. Quoted singly: expanded on each node, not here.
nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
export MASTER_ADDR="${SARM_MASTER_ADDR:-${nodes%%$'\n'*}}"
export MASTER_PORT=$(( 20000 + SLURM_JOB_ID % 20000 ))
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-4}" SARM_REQUEST="$job_dir/request.json"
# --export: a site's SBATCH_EXPORT=NONE would take what is exported here from the step as well.
# shellcheck disable=SC2016
srun --nodes=2 --ntasks=2 --export=ALL --kill-on-bad-exit=1 --wait=120 bash -c '
  exec torchrun --nnodes="$SLURM_JOB_NUM_NODES" --nproc-per-node=2 --node-rank="$SLURM_NODEID" \
    --master-addr="$MASTER_ADDR" --master-port="$MASTER_PORT" --max-restarts=0 \
    -m sarm.jobs "$SARM_REQUEST" --store "$SARM_STORE" --command "$SARM_COMMAND" --registry make_believe_jobs:MAKE_BELIEVE' >> "$job_dir/events.jsonl" &
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
