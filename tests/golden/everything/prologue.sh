# shellcheck shell=dash
# hpcproxy prologue.sh: rendered from the configuration; a change belongs there, not here.
__hpcproxy_home='/home/größe/my files/.hpcproxy'
__hpcproxy_replace=1
__hpcproxy_required=1
__hpcproxy_port=3128

#= lib/proxies.sh

#= lib/restore.sh

#= lib/env.sh

#= lib/listening.sh

#= lib/start.sh

#= lib/tell.sh

#= lib/prologue.sh
