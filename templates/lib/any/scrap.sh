# shellcheck shell=bash
# Directories that are a job's user's, in a directory of root's: made small, and taken away in a time that does not depend on
# what he has put there.
#
# Each is a file system of its own in memory, with a bound on bytes and on names: nobody can store anything in /run by way of
# us, and to take it away is one call. Where nothing can be mounted it is a plain directory, which is moved out of the way
# and removed by a process that nobody waits for, a minute of work at a time.

# True if something is mounted at $1, which is not touched for it.
is_mounted() {
    local line rest lines=()
    mapfile -t lines </proc/self/mounts # at once: for each `read` the kernel begins at the table's first line
    for line in ${lines[@]+"${lines[@]}"}; do
        rest=${line#* }
        if [[ ${rest%% *} == "$1" ]]; then return 0; fi
    done
    return 1
}

# The directory $1 is no longer there by its name.
scrap() {
    local tries
    # Whoever still has a file of it open, or stands in it, keeps nobody waiting. The user may have mounted something of his
    # (FUSE) over it, and again over that, and whoever asks what is there would wait for his program.
    for ((tries = 0; tries < 16; tries++)); do
        if ! is_mounted "$1" || ! timeout -s KILL 2 umount -c -l -- "$1"; then break; fi
    done
    [[ -e $1 || -L $1 ]] || return 0
    rmdir -- "$1" && return 0
    [[ -d $run_base/scrap ]] || mkdir -m 0700 -- "$run_base/scrap"
    mv -T -- "$1" "$run_base/scrap/${1##*/}-$$-$RANDOM$RANDOM"
} 2>/dev/null
