#!/bin/bash
# A SLURM of one node, as root on Debian (apt-get install slurm-wlm munge), and a tiny grid on it. From the repository's root:
#     PATH=.venv/bin:$PATH tests/slurm/run.sh
set -euo pipefail
folder=$(mktemp -d)
name=$(hostname -s)
mkdir -p "$folder/state" "$folder/spool" /run/munge
[ -f /etc/munge/munge.key ] || mungekey --create
chown -R munge: /etc/munge /run/munge /var/lib/munge /var/log/munge
runuser -u munge -- munged --force
cat > "$folder/slurm.conf" <<END
ClusterName=test
SlurmctldHost=$name(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
NodeName=$name NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=all Nodes=$name Default=YES State=UP
END
export SLURM_CONF=$folder/slurm.conf
slurmctld && slurmd
trap 'kill $(cat "$folder/slurmctld.pid" "$folder/slurmd.pid") $(cat /run/munge/munged.pid)' EXIT
for variable in nnUNet_raw nnUNet_preprocessed nnUNet_results; do export $variable="$folder/$variable"; done
python - "$folder" <<END
import sys
from pathlib import Path
from ccdcseg.datasets.acdc import prepare_acdc
from ccdcseg.phantom import write_phantom
from ccdcseg.datasets.splits import split_dataset
root = Path(sys.argv[1])
split_dataset(prepare_acdc(write_phantom(root / "release", 3, 1), root / "nnUNet_raw", 901), [0.34], 0)
END
cat > "$folder/tiny.yaml" <<END
title: tiny
fractions: [0.34]
rows:
  - {name: nnunet, method: nnunet, changes: [training.epochs=1, training.iterations_per_epoch=5]}
  - {name: ccdc, changes: [training.epochs=1, training.iterations_per_epoch=5]}
END
ccdcseg reproduce 901 "$folder/tiny.yaml" --preset smoke --launcher slurm --processes 2 -o "$folder/out"
