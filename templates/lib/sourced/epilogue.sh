# shellcheck shell=dash
# End the tunnel of this job on all its nodes and bring the caller's settings back. Sourced by a job script.

/bin/bash -p "$__hpcproxy_home/job.sh" stop </dev/null || :
__hpcproxy_restore
