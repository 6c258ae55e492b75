# shellcheck shell=dash
# hpcproxy prologue.sh: rendered from the configuration; a change belongs there, not here.
__hpcproxy_home=/home/alice/.hpcproxy
__hpcproxy_replace=''
__hpcproxy_required=''

#= lib/restore.sh

#= lib/env.sh

#= lib/listening.sh

#= lib/start.sh

#= lib/tell.sh

#= lib/prologue.sh
