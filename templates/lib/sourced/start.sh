# shellcheck shell=dash
# Start a tunnel, for a job's prologue or for a shell. Sourced; valid in bash and dash.

# True once job.sh has one that listens, whose state is then read; else it is said why not. Where ssh itself listens it
# may have been cut off since job.sh saw it: asked again, job.sh waits until its supervisor has it up. `$1` is `shell`
# in one; `$2`, if given, the job script, which is looked through for what leads elsewhere. Where none is needed there
# is none, and __hpcproxy_out is 1.
__hpcproxy_start() {
    local state tries=0 consequence='; the job runs on without it'
    __hpcproxy_out=''
    if [ -n "${__hpcproxy_required-}" ]; then consequence='; the job stops, because the configuration says required'; fi
    if [ -n "$1" ]; then consequence=''; fi
    while [ "$tries" -lt 5 ]; do
        state=$(HPCPROXY_HOLDER=1 /bin/bash -p "$__hpcproxy_home/job.sh" start "$1" ${2:+"$2"} </dev/null) || return 1
        # Of a Slurm whose steps would wait for ours (job.sh).
        __hpcproxy_overlap=''
        if [ "$state" = out ]; then
            __hpcproxy_out=1
            return 1
        fi
        case $state in 'overlap '*) __hpcproxy_overlap=1 state=${state#overlap } ;; esac
        __hpcproxy_foreign=''
        if __hpcproxy_read "$state" && __hpcproxy_listening; then return 0; fi
        if [ -n "$__hpcproxy_foreign" ]; then
            printf 'hpcproxy: no tunnel: another version of hpcproxy has started the one in %s%s\n' "$state" "$consequence" >&2
            return 1
        fi
        tries=$((tries + 1))
    done
    printf 'hpcproxy: no tunnel: it was up and does not listen now%s\n' "$consequence" >&2
    return 1
}
