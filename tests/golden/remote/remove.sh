#!/bin/bash
# hpcproxy receive.sh: sent to a host with each command, never installed.
token=TOKEN
action=remove
store=/var/lib/hpcproxy
want_content=''
port=0
slurm_conf=''
paths=(
    '/etc/hpcproxy/a b'
    /etc/slurm/prolog.d/50-b
)
digests=(
    982d9e3eb996f559e633f4d194def3761d909f5a3b647d1a851fead67c32c9d1
    982d9e3eb996f559e633f4d194def3761d909f5a3b647d1a851fead67c32c9d1
)
modes=(
    0755
    0644
)
owners=(
    root
    slurm
)
secrets=()
own_directory=/usr/libexec/hpcproxy
lock_file=/run/hpcproxy-deploy.lock
run_base=/run/hpcproxy
drop_ins=()
task_prolog=''
slurm_bin=''

#= lib/any/hierarchies.sh

#= lib/any/process.sh

#= lib/host/changing.sh

#= lib/host/scontrol.sh

#= lib/host/needed.sh

#= lib/any/uptime.sh

#= lib/any/group.sh

#= lib/any/emptygroups.sh

#= lib/any/scrap.sh

#= lib/any/nft.sh

#= lib/any/record.sh

#= lib/host/remove.sh

#= lib/host/receive.sh
