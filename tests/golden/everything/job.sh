#!/bin/bash
# hpcproxy job.sh: rendered from the configuration; a change belongs there, not here.
set -euo pipefail

home='/home/größe/my files/.hpcproxy'
run_base=/run/hpcproxy
required=1
ready_timeout_s=60
logins_per_s=32
jump_count=2

#= lib/process.sh

#= lib/clock.sh

#= lib/uptime.sh

#= lib/spread.sh

#= lib/state.sh

#= lib/status.sh

#= lib/job.sh
