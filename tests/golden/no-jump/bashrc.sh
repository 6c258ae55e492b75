# shellcheck shell=dash
# hpcproxy bashrc.sh: rendered from the configuration; a change belongs there, not here.
__hpcproxy_home=/home/alice/.hpcproxy
__hpcproxy_run=/run/hpcproxy
__hpcproxy_replace=''
__hpcproxy_autostart=''
__hpcproxy_port=2015

#= lib/proxies.sh

#= lib/restore.sh

#= lib/env.sh

#= lib/listening.sh

#= lib/start.sh

#= lib/tell.sh

#= lib/find.sh

#= lib/bashrc.sh
