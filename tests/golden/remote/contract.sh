#!/bin/bash
# hpcproxy contract.sh: sent to a host with each command, never installed.
token=TOKEN
run_base=/run/hpcproxy
prolog=/etc/slurm/prolog.d/50-hpcproxy
epilog=/etc/slurm/epilog.d/50-hpcproxy
partition=none
account=none
task_prolog=/usr/libexec/hpcproxy/taskprolog
site_task_prolog=''
slurm_conf=/etc/slurm/slurm.conf
slurm_bin=''
image=/var/lib/hpcproxy/image
given_ms=0
before=()
after=(
    '/etc/slurm/prolog.d/*'
    '/etc/slurm/epilog.d/*'
)
controllers_own=()

#= lib/host/scontrol.sh

#= lib/host/beside.sh

#= lib/host/contract.sh
