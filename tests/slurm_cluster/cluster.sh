#!/usr/bin/env bash
# A small Slurm on one plain Debian machine without systemd: munged, slurmctld and two slurmd, started by hand.
#   cluster.sh check      can it run here? one line with the reason and exit code 1 if not
#   cluster.sh install    Debian packages: slurm-wlm, munge, shellcheck
#   cluster.sh start      starts it below $SARM_SLURM_DIR (default /tmp/sarm-slurm); SLURM_CONF is $SARM_SLURM_DIR/slurm.conf
#   cluster.sh stop       cancels its jobs and ends its daemons
# Both nodes are this machine under another name and port. Their GPUs are pretended: `gres.conf` points at device nodes that
# are /dev/null. Nothing outside $SARM_SLURM_DIR is written; keys, sockets and logs are its own.
set -euo pipefail

dir="${SARM_SLURM_DIR:-/tmp/sarm-slurm}"
port="${SARM_SLURM_PORT:-27100}"
cpus="${SARM_SLURM_CPUS:-64}"        # of each node
export SLURM_CONF="$dir/slurm.conf"
nodes=(sarm1 sarm2)

check() {
  local reason=""
  if [[ $(uname -s) != Linux ]]; then reason="needs Linux"
  elif (( $(id -u) != 0 )); then reason="needs root, to start slurmd and to make device nodes"
  elif ! command -v slurmctld slurmd munged sbatch > /dev/null; then
    if command -v apt-get > /dev/null; then reason="Slurm is not installed; run: $0 install"
    else reason="neither Slurm nor apt-get is here"; fi
  fi
  if [[ -n $reason ]]; then echo "$reason"; return 1; fi
}

install_packages() {
  apt-get update -qq
  # A package's own service cannot start without systemd and is not needed.
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge shellcheck
}

write_configuration() {
  local host user
  host=$(hostname -s)
  user=$(id -un)
  mkdir -p "$dir"/{state,spool-sarm1,spool-sarm2,log,run,dev}
  chmod 755 "$dir"
  for number in 0 1 2 3; do
    for kind in a100 rtx3090; do
      [[ -e $dir/dev/$kind-$number ]] || mknod -m 666 "$dir/dev/$kind-$number" c 1 3
    done
  done
  cat > "$SLURM_CONF" << CONF
ClusterName=sarm
SlurmctldHost=$host(127.0.0.1)
SlurmUser=$user
SlurmdUser=$user
SlurmctldPort=$port
AuthType=auth/munge
CredType=cred/munge
# A requeued job may start again once its old credential has expired: 120 seconds unless told.
AuthInfo=socket=$dir/run/munge.socket,cred_expire=5
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool-%n
SlurmctldPidFile=$dir/run/slurmctld.pid
SlurmdPidFile=$dir/run/slurmd-%n.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
JobRequeue=1
KillWait=8
MinJobAge=3600
ReturnToService=2
SlurmctldTimeout=60
SlurmdTimeout=120
SchedulerParameters=sched_interval=1,bf_interval=2,batch_sched_delay=1,defer=0
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/filetxt
JobCompLoc=$dir/log/jobs.txt
# Cores and memory are pretended as well, so that the paper's scripts are accepted (and held) by a laptop.
SlurmdParameters=config_overrides
NodeName=sarm1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 1)) CPUs=$cpus RealMemory=512000 Gres=gpu:a100:4,gpu:rtx3090:4 State=UNKNOWN
NodeName=sarm2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 2)) CPUs=$cpus RealMemory=512000 Gres=gpu:a100:4,gpu:rtx3090:4 State=UNKNOWN
PartitionName=all Nodes=sarm1,sarm2 Default=YES MaxTime=INFINITE State=UP
PartitionName=granted Nodes=sarm1,sarm2 MaxTime=INFINITE State=UP DefMemPerCPU=300
CONF
  write_filter
  cat > "$dir/gres.conf" << CONF
NodeName=sarm[1-2] Name=gpu Type=a100 File=$dir/dev/a100-[0-3]
NodeName=sarm[1-2] Name=gpu Type=rtx3090 File=$dir/dev/rtx3090-[0-3]
CONF
}

# A site that grants memory with the cores and refuses who asks for it: what Debian's Slurm can ask of a file in Lua.
write_filter() {
  compgen -G "/usr/lib*/*/slurm*/job_submit_lua.so" > /dev/null || return 0
  echo "JobSubmitPlugins=lua" >> "$SLURM_CONF"
  cat > "$dir/job_submit.lua" << 'LUA'
function slurm_job_submit(job, partitions, user)
  if job.partition == "granted" and (job.min_mem_per_node ~= nil or job.min_mem_per_cpu ~= nil) then
    slurm.log_user("memory comes with the cores here; leave out --mem")
    return slurm.ERROR
  end
  return slurm.SUCCESS
end
function slurm_job_modify(job, record, partitions, user) return slurm.SUCCESS end
LUA
}

start_munge() {
  local key="$dir/run/munge.key"
  [[ -s $key ]] || (umask 077; head -c 1024 /dev/urandom > "$key")
  munged --force --socket="$dir/run/munge.socket" --key-file="$key" --pid-file="$dir/run/munged.pid" \
    --log-file="$dir/log/munged.log" --seed-file="$dir/run/munged.seed"
}

start() {
  check
  if [[ -e $dir/run/slurmctld.pid ]] && scontrol ping > /dev/null 2>&1; then return 0; fi
  write_configuration
  start_munge
  slurmctld -c
  local node
  for node in "${nodes[@]}"; do slurmd -c -N "$node"; done
  local tries=0
  # A node has a line for each of its partitions.
  until [[ $(sinfo --noheader --Node --format='%N %T' 2> /dev/null | sort -u | grep -c ' idle$') == "${#nodes[@]}" ]]; do
    if (( ++tries > 60 )); then
      echo "the nodes did not come up within 30 seconds; see $dir/log" >&2
      tail -n 5 "$dir"/log/*.log >&2
      return 1
    fi
    sleep 0.5
  done
}

stop() {
  scancel --quiet --user="$(id -un)" 2> /dev/null || true
  scontrol shutdown > /dev/null 2>&1 || true
  local file pid tries
  for file in "$dir"/run/*.pid; do
    [[ -s $file ]] || continue
    pid=$(< "$file")
    # Only what still is one of the daemons: the number may belong to another process by now.
    case "$(cat "/proc/$pid/comm" 2> /dev/null || true)" in
      munged | slurmctld | slurmd) ;;
      *) rm -f "$file"; continue ;;
    esac
    kill "$pid" 2> /dev/null || true
    # Its port is free for the next start only once it has ended; where nobody reaps it, it stays behind as a zombie.
    for (( tries = 0; tries < 100; ++tries )); do
      grep -qs '^State:[[:space:]]*[^Z]' "/proc/$pid/status" || break
      sleep 0.1
    done
    grep -qs '^State:[[:space:]]*[^Z]' "/proc/$pid/status" && kill -KILL "$pid" 2> /dev/null
    rm -f "$file"
  done
}

case "${1:-}" in
  check) check ;;
  install) install_packages ;;
  start) start ;;
  stop) stop ;;
  *) sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
