#!/bin/bash -p
# hpcproxy supervisor.sh: rendered from the inventory; a change belongs there, not here.
set -euo pipefail

home=/usr/libexec/hpcproxy
run_base=/run/hpcproxy
port=2015
agent=1
scheme=socks5h
bypass_private=1
no_proxy_more=()
service_account=hpcproxy
task_wait_s=5
logins_per_s=32
jump_count=1
our_epilog=/etc/slurm/epilog.d/50-hpcproxy
site_runs_hooks=''
look_s=300

#= lib/any/process.sh

#= lib/any/clock.sh

#= lib/any/uptime.sh

#= lib/any/spread.sh

#= lib/any/nodes.sh

#= lib/any/address.sh

#= lib/any/fields.sh

#= lib/any/hierarchies.sh

#= lib/any/group.sh

#= lib/any/emptygroups.sh

#= lib/any/scrap.sh

#= lib/any/nft.sh

#= lib/any/record.sh

#= lib/supervisor/begin.sh

#= lib/supervisor/ended.sh

#= lib/supervisor/supervise.sh

#= lib/supervisor/supervisor.sh
