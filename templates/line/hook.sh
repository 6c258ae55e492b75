# shellcheck shell=dash
# What a job script gets: the prologue is read, and where there is none the job runs on. The shells are the users' own.
if [ -r "${HPCPROXY_HOME:-${HOME-}/.hpcproxy}/prologue.sh" ]; then
    # shellcheck disable=SC1091 # it is the account's
    . "${HPCPROXY_HOME:-${HOME-}/.hpcproxy}/prologue.sh"
else
    printf 'hpcproxy: no prologue.sh here; the job runs on without a way out\n' >&2
fi
