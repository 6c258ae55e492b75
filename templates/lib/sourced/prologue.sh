# shellcheck shell=dash
# Start the tunnel on every node of this job and use it. Sourced by a job script; valid in bash and dash.
# All the work is done by a process of its own, so that nothing of the job script's shell is touched but the variables.

# False only if the job is to be stopped.
__hpcproxy_begin() {
    if __hpcproxy_start '' "$0"; then
        __hpcproxy_export
        __hpcproxy_tell || :
        return 0
    fi
    # What a login shell exported for its own tunnel leads nowhere here.
    __hpcproxy_restore
    [ -z "$__hpcproxy_required" ] || [ -n "$__hpcproxy_out" ]
}
